"""Writes lib/modelyard/locked.py: the locked versions of those packages that can change what a step computes.

They enter the keys of actions, and the submitter knows them without importing any of them. With `--check` nothing is written; the exit code says
whether the file is the one that the lock gives.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements" / "jobs-default.txt"
TARGET = ROOT / "lib" / "modelyard" / "locked.py"

CHANGE_RESULTS = (
    "accelerate",
    "datasets",
    "faster-coco-eval",
    "numpy",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "peft",
    "pillow",
    "pyarrow",
    "safetensors",
    "scipy",
    "tokenizers",
    "torch",
    "transformers",
)

TEMPLATE = '''\
"""The locked versions of the packages that can change what a step computes. Written by `make lock`; not to be edited.

They are part of an action's key. Packages that only carry bytes or print are left out, so that their updates do not repeat a training.
"""

from __future__ import annotations

PINNED: dict[str, str] = {{
{rows}
}}
"""Name of the distribution -> version, as requirements/{lock} has it."""
'''


def main() -> int:
    """Write the file, or with `--check` compare it; 1 when it is stale."""
    text = render(LOCK.read_text())
    if "--check" not in sys.argv[1:]:
        TARGET.write_text(text)
    elif not TARGET.exists() or TARGET.read_text() != text:
        print(f"{TARGET.relative_to(ROOT)} is stale: python requirements/pin.py", file=sys.stderr)
        return 1
    return 0


def render(lock: str) -> str:
    """The module's text for a lock's text; SystemExit when a package is not there exactly once."""
    rows = []
    for name in CHANGE_RESULTS:
        versions = re.findall(rf"^{name}==(\S+)", lock, re.MULTILINE)
        if len(versions) != 1:
            sys.exit(f"{LOCK.relative_to(ROOT)} has {name} {len(versions)} times; one version must hold on every platform")
        rows.append(f'    "{name}": "{versions[0]}",')
    return TEMPLATE.format(rows="\n".join(rows), lock=LOCK.name)


if __name__ == "__main__":
    sys.exit(main())
