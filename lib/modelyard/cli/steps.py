"""`modelyard search`, `fetch`, `finetune` and the other verbs: each a pipeline of one step, named after it, with options made from its settings."""

from __future__ import annotations

from typing import Any

import click

from modelyard.cli import options
from modelyard.cli.lazy import PROGRAM
from modelyard.cli.run import DETACH, DRIVER, SMOKE, launch
from modelyard.cli.session import Session, command
from modelyard.steps import STEPS, Resources, Reuse

EXAMPLES = {
    "search": ["modelyard search --query sentiment --task text-classification", "modelyard search --query bert --hub modelscope -o json"],
    "fetch": ["modelyard fetch --model modelscope://owner/name", "modelyard fetch --dataset ./reviews.csv"],
    "preflight": ["modelyard preflight", "modelyard preflight --gpus 1 --disk 20Gi -o json"],
    "finetune": [
        "modelyard finetune --model modelscope://owner/name --data ./reviews.csv --epochs 2",
        "modelyard finetune --model yard://models/base --data hf://datasets/owner/name --gpus 1 --fallback cpu",
    ],
    "infer": ["modelyard infer --model yard://models/reviews@champion --data ./new.csv --rows 100"],
    "evaluate": ["modelyard evaluate --model yard://models/reviews --data ./reviews.csv --split test -o json"],
    "export": ["modelyard export --model yard://models/reviews@champion --parity ./reviews.csv --int8"],
    "promote": [
        "modelyard promote --model yard://models/reviews --to yard://models/reviews@champion",
        "modelyard promote --to yard://models/reviews@champion --rollback",
    ],
    "publish": ["modelyard publish --model yard://models/reviews@champion --to modelscope://me/reviews"],
}

_FORCE = click.Option(["--force"], is_flag=True, help="Do the step again although its result is known.")


def _command(verb: str) -> click.Command:
    step = STEPS[verb]
    resources = options.options(Resources) if step.reuse is Reuse.PURE or verb == "preflight" else []  # the others never take a device

    def call(session: Session, *, detach: bool, smoke: bool, force: bool, driver: str, **given: Any) -> int:
        from modelyard.spec import Pipeline

        where = f"{PROGRAM} {verb}"
        pipeline = Pipeline(verb, {verb: options.build(step, given, where)}, options.build(Resources, given, where))
        return launch(session, pipeline, force=(verb,) if force else (), detach=detach, smoke=smoke, driver=driver)

    made = [*options.options(step), *resources, DETACH, SMOKE, DRIVER, _FORCE]
    return command(verb, examples=EXAMPLES[verb], options=made, help=step.__doc__)(call)


search, fetch, preflight, finetune, infer, evaluate, export, promote, publish = (_command(verb) for verb in STEPS)
