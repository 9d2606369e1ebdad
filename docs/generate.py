"""Fills the generated parts of docs/*.md from the tables in the code: `<!-- generated: NAME -->` to `<!-- /generated -->`.

With `--check` nothing is written; the exit code says whether every part is what the tables give.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from modelyard import config
from modelyard.errors import REGISTRY, RETRIES, Rule
from modelyard.kube.diagnosis import CATEGORIES, Group
from modelyard.steps import STEPS, Gate, Infer, Resources, Reuse, Step, Task, Trainable

DOCS = Path(__file__).resolve().parent
PART = re.compile(r"(<!-- generated: ([a-z-]+) -->\n).*?(<!-- /generated -->)", re.DOTALL)

_RULES = {
    Rule.FAIL: "fail: trying again cannot help",
    Rule.COUNT: f"count: tried again, at most {RETRIES} times",
    Rule.IGNORE: "ignore: tried again, unless nothing moves",
    Rule.CLI: "ends a command, never a step",
}
_REUSED = {
    Reuse.RESOLVE: "Reused where the ref stands for the same files.",
    Reuse.PURE: "Reused where settings, inputs, code, versions of packages and kind of device are the same.",
    Reuse.OBSERVE: "Never reused: it looks each time.",
    Reuse.EFFECT: "Looks first at what is there, and changes nothing where that is the same.",
}


def main(arguments: Sequence[str]) -> int:
    """Write the parts, or with `--check` compare them; 1 where one is stale."""
    stale = [path for path in sorted(DOCS.glob("*.md")) if filled(path.read_text(encoding="utf-8")) != path.read_text(encoding="utf-8")]
    if "--check" in arguments:
        for path in stale:
            print(f"docs/{path.name} is stale: python docs/generate.py", file=sys.stderr)
        return int(bool(stale))
    for path in stale:
        path.write_text(filled(path.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


def filled(text: str) -> str:
    """The page with its generated parts as the tables give them."""
    return PART.sub(lambda match: match[1] + "\n".join(PARTS[match[2]]()) + "\n" + match[3], text)


def steps() -> Iterator[str]:
    """Every verb with its settings."""
    for verb, model in STEPS.items():
        yield from ["", f"### {verb}", "", (model.__doc__ or "").strip(), "", _about(model), ""]
        yield from settings(model)
        if "gate" in model.model_fields and verb == next(name for name, other in STEPS.items() if "gate" in other.model_fields):
            yield from ["", "#### gate", "", (Gate.__doc__ or "").strip(), ""]
            yield from settings(Gate)


def resources() -> Iterator[str]:
    """What a step asks of a machine."""
    yield from settings(Resources)


def settings(model: type[BaseModel]) -> Iterator[str]:
    """The settings of a model as a table."""
    schema = model.model_json_schema()
    neutral: frozenset[str] = getattr(model, "neutral", frozenset())
    inputs: Mapping[str, str] = getattr(model, "inputs", {})
    rows = []
    for name, field in schema["properties"].items():
        if name == "resources":
            continue
        kind = f"a {inputs[name]}" if name in inputs else _kind(field)
        default = "**required**" if name in schema.get("required", ()) else _default(field.get("default"))
        note = "; no part of what the result is found by" if name in neutral else ""
        rows.append([f"`{name}`", kind, default, field.get("description", "") + note])
    yield from table(["setting", "type", "default", "what it is"], rows)


def exit_codes() -> Iterator[str]:
    """The table of failures."""
    rows = [["0", "ok", "done, or reused", ""]]
    rows += [[str(kind.exit_code), name, kind.meaning, _RULES[kind.rule]] for name, kind in REGISTRY.items()]
    yield from table(["exit code", "class", "what it means", "what happens to a step"], rows)


def categories() -> Iterator[str]:
    """The categories of explain, by where they are seen."""
    for group in Group:
        yield from ["", f"### {group.value[:1].upper()}{group.value[1:]}", ""]
        yield from table(["category", "what it means"], [[f"`{name}`", row.meaning] for name, row in CATEGORIES.items() if row.group is group])


def in_force() -> Iterator[str]:
    """What modelyard.toml can set."""
    rows = [
        [f"`{name}`", f"`{config.PREFIX}{name.replace('.', '_').upper()}`", f"`{default}`" if default else ""]
        for name, default in config.SETTINGS.items()
    ]
    yield from table(["setting", "variable", "default"], rows)


def tasks() -> Iterator[str]:
    """What is made for each task, as its class says."""
    from modelyard_jobs import tasks as known  # needs no torch
    from modelyard_jobs.tasks.task import Illustrated

    rows = []
    for name in get_args(Task):
        named = {"candidates": ("one", "other")} if name == "zero-shot-classification" else {}
        task = known.of(name, Infer.model_validate({"model": "model", "data": "data", "task": name, **named}))
        names = ", ".join(f"`{field}`" for field in task.empty())
        told = [name in get_args(Trainable), isinstance(task, Illustrated), task.signature(["one", "other"]) is not None]
        rows.append([f"[{name}](#{name})", f"`{task.auto}`", names, *("yes" if each else "no" for each in told)])
    yield from table(["task", "transformers' class", "infer writes", "finetune", "pictures", "export"], rows)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """A Markdown table."""
    for row in [header, ["---"] * len(header), *rows]:
        yield "| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |"


def _about(model: type[Step]) -> str:
    made = model.made or ("a model or a dataset, as the ref says" if model.verb == "fetch" else None)
    makes = f"Makes {made if made is None or made.startswith('a ') or made == 'metrics' else f'a {made}'}." if made else "Makes no artifact."
    return f"{makes} {_REUSED[model.reuse]}"


def _kind(field: Mapping[str, Any]) -> str:
    """The type of a setting, with its bounds, from its JSON Schema."""
    if "anyOf" in field:
        return " or ".join(_kind(form) for form in field["anyOf"] if form.get("type") != "null")
    if "$ref" in field:
        return f"[{field['$ref'].rpartition('/')[2].lower()}](#gate)"
    if "const" in field or "enum" in field:
        return " or ".join(f"`{value}`" for value in field.get("enum", [field.get("const")]))
    if field.get("type") == "array":
        return f"list of {_kind(field.get('items', {}))}"
    if field.get("type") == "object":
        values = field.get("additionalProperties")
        return f"mapping to {_kind(values)}" if isinstance(values, dict) else "mapping"
    pattern = field.get("pattern", "")
    words = {"integer": "whole number", "number": "number", "boolean": "`true` or `false`", "string": "text"}
    if field.get("type") == "string" and "Gi" in pattern:
        return "amount, such as `16Gi`"
    if field.get("type") == "string" and "smhd" in pattern:
        return "time, such as `2h`"
    return words[field["type"]] + _bounds(field)


def _bounds(field: Mapping[str, Any]) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    found = [
        f"{sign} {field[bound]:g}" if isinstance(field[bound], float) else f"{sign} {field[bound]}" for bound, sign in signs.items() if bound in field
    ]
    return f" ({', '.join(found)})" if found else ""


def _default(value: object) -> str:
    if value is None or value in ("", (), [], {}):
        return ""
    if isinstance(value, list):
        return f"`[{', '.join(map(str, value))}]`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


PARTS: Mapping[str, Callable[[], Iterator[str]]] = {
    "steps": steps,
    "resources": resources,
    "exit-codes": exit_codes,
    "categories": categories,
    "settings": in_force,
    "tasks": tasks,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
