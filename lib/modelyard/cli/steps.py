"""`modelyard fetch`, `finetune`, `infer`, `evaluate`: each a pipeline of one step, named after its verb, with options made from its settings."""

from __future__ import annotations

from typing import Any

import click

from modelyard.cli import options
from modelyard.cli.lazy import PROGRAM
from modelyard.cli.run import DETACH, SMOKE, launch
from modelyard.cli.session import Session, command
from modelyard.steps import STEPS, Resources, Reuse

EXAMPLES = {
    "fetch": ["modelyard fetch --model modelscope://owner/name", "modelyard fetch --dataset ./reviews.csv"],
    "finetune": [
        "modelyard finetune --model modelscope://owner/name --data ./reviews.csv --epochs 2",
        "modelyard finetune --model yard://models/base --data hf://datasets/owner/name --gpus 1 --fallback cpu",
    ],
    "infer": ["modelyard infer --model yard://models/reviews@champion --data ./new.csv --rows 100"],
    "evaluate": ["modelyard evaluate --model yard://models/reviews --data ./reviews.csv --split test -o json"],
}

_FORCE = click.Option(["--force"], is_flag=True, help="Do the step again although its result is known.")


def _command(verb: str) -> click.Command:
    step = STEPS[verb]
    computes = step.reuse is not Reuse.RESOLVE  # a fetch never takes a device

    def call(session: Session, *, detach: bool, smoke: bool, force: bool, **given: Any) -> int:
        from modelyard.spec import Pipeline

        where = f"{PROGRAM} {verb}"
        pipeline = Pipeline(verb, {verb: options.build(step, given, where)}, options.build(Resources, given, where))
        return launch(session, pipeline, force=(verb,) if force else (), detach=detach, jobs=1, smoke=smoke)

    made = [*options.options(step), *(options.options(Resources) if computes else []), DETACH, SMOKE, _FORCE]
    return command(verb, examples=EXAMPLES[verb], options=made, help=step.__doc__)(call)


fetch, finetune, infer, evaluate = (_command(verb) for verb in ("fetch", "finetune", "infer", "evaluate"))
