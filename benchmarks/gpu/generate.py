"""Generation on an accelerator: prompts together, as infer does it, against the same prompts one by one, both in bfloat16.

A Llama of random weights and 24 layers of 768. Prompts of lognormal length; an answer has 64 tokens, or fewer. Counts answers that begin alike: in
bfloat16 two tokens that are nearly as good change places with the shape of a batch. Exit code 1: together is not 5 times as fast.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks import encoders, stepping
from benchmarks.gpu import machine
from modelyard.steps import Infer
from modelyard.yard import Yard
from modelyard_jobs import infer

FLOOR = 5.0


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; 1 when together is not fast enough."""
    options = machine.arguments("generation, together and one by one", argv, prompts=64, tokens=64)
    prompts, tokens = (6, 8) if options.tiny else (options.prompts, options.tokens)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        yard, rows = Yard.open(folder / "yard"), folder / "rows"
        rows.mkdir()
        (rows / "test.jsonl").write_text("".join(json.dumps({"prompt": text}) + "\n" for text in encoders.texts(prompts)))
        model = encoders.save_language(folder / "model", "tiny" if options.tiny else "base")
        inputs = {"model": encoders.commit(yard, "model", model), "data": encoders.commit(yard, "dataset", rows)}
        rates, answers = {}, {}
        for name, budget in {"warm": 4096, "together": None, "one by one": 16}.items():  # two rows never fit into 16 tokens
            settings = Infer(model="m", data="d", dtype="bfloat16", max_new_tokens=tokens, token_budget=budget)
            ran = stepping.run(infer.run, settings, inputs, yard, folder / name, device=options.device)
            speed = ran.details["speed"]
            rates[name] = speed["generated_per_second"]
            answers[name] = [json.loads(line)["answer"] for path in sorted((ran.files / "data").iterdir()) for line in path.open()]
            print(f"{name:10} {speed['generated']} tokens, {rates[name]:.1f} per second", flush=True)
    begun = [tuple(answer.split()[:4]) for answer in answers["together"]]
    same = sum(first == tuple(answer.split()[:4]) for first, answer in zip(begun, answers["one by one"], strict=True))
    print(f"{same} of {prompts} answers begin with the same four words")
    ratio = rates["together"] / rates["one by one"]
    return machine.held({f"together is {ratio:.2f} x one by one, at least {FLOOR}": ratio >= FLOOR}, judged=not options.tiny)


if __name__ == "__main__":
    sys.exit(main())
