"""Pipelines: named steps, read from a file or built in Python, checked before anything runs.

A `Pipeline` that exists is valid: names are allowed, every input is there and of the right kind, nothing depends on itself. Refs that stand as
inputs have become fetch steps of their own, one per ref. `load` reports every error of a file at once, each with line and field path.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from modelyard import document, refs
from modelyard.document import Document, Location, field_path
from modelyard.errors import Usage, suggest
from modelyard.steps import STEPS, Evaluate, Promote, Publish, Resources, Reuse, Step

SCHEMA_ID = "https://json-schema.org/draft/2020-12/schema"

_NAME = re.compile(r"[a-z](?:[a-z0-9-]*[a-z0-9])?")
_LONGEST = 40
"""Letters of pipeline and step name together: a Job `<pipeline>-<step>-<10 hex>-r<N>` and its pods' suffix stay within 63."""


@dataclass(frozen=True)
class Pipeline:
    """Named steps. Inputs are names of steps here, whatever they were written as.

    base: the folder that relative paths start from; default the current one.
    Raises Usage when the steps do not make a pipeline.
    """

    name: str
    steps: Mapping[str, Step]
    resources: Resources = field(default_factory=Resources)
    base: Path | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        steps, problems = _checked(self.name, self.steps, self.base)
        object.__setattr__(self, "steps", steps)
        if problems:
            raise _usage(problems, field_path)

    def inputs(self, name: str) -> dict[str, str]:
        """Field -> name of the step whose artifact that field of step `name` takes."""
        return {place: str(source) for place, source in self.steps[name].sources().items()}

    def order(self) -> list[str]:
        """Names of steps such that each comes after those that it needs, otherwise as written."""
        order: list[str] = []
        while len(order) < len(self.steps):
            order.append(next(name for name in self.steps if name not in order and set(self.inputs(name).values()) <= set(order)))
        return order

    def resources_of(self, name: str) -> Resources:
        """The pipeline's resources with the step's own in their place; accelerators and the pipeline's cpu and memory are for steps that compute."""
        step = self.steps[name]
        found = self.resources.under(step.resources)
        dropped: dict[str, Any] = {}
        if not step.computes() or found.accelerator == "none":
            dropped |= {"gpus": 0, "fallback": None}
        if not step.computes() and step.reuse is not Reuse.PURE:
            own = step.resources.model_fields_set if step.resources else frozenset()
            dropped |= {size: None for size in ("cpu", "memory", "shm") if size not in own}
        return found.model_copy(update=dropped)

    def smoke(self) -> Pipeline:
        """The same pipeline on a handful of rows, without the steps that change something outside of the run.

        Raises Usage: there is no other step.
        """
        return replace(self, steps={name: step.smoke() for name, step in self.steps.items() if step.reuse is not Reuse.EFFECT})

    def to_dict(self) -> dict[str, Any]:
        """The pipeline with every default written out, as JSON values."""
        resources = {name: self.resources_of(name).model_dump(mode="json") for name in self.steps}
        return {"name": self.name, "steps": {name: {step.verb: step.settings(), "resources": resources[name]} for name, step in self.steps.items()}}

    @property
    def digest(self) -> str:
        """sha256 of the canonical JSON of `to_dict`."""
        return digest(self.to_dict())


def digest(value: Any) -> str:
    """sha256, in hex, of the canonical JSON of a value: sorted keys, no spaces, UTF-8, no NaN."""
    return hashlib.sha256(canonical(value)).hexdigest()


def canonical(value: Any) -> bytes:
    """The canonical JSON of a value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def load(path: Path | str) -> Pipeline:
    """The pipeline in a YAML file. Raises NoInput: no such file; Usage: every error in it, with lines."""
    path = Path(path)
    return from_document(document.read(path), base=path.resolve().parent)


def from_document(doc: Document, base: Path | None = None) -> Pipeline:
    """The pipeline that a document describes. Raises Usage with every error in it."""
    problems: list[_Problem] = []
    root = doc.value
    if not isinstance(root, dict):
        raise Usage("this is no pipeline", where=doc.name, why="the file must be a mapping with `name` and `steps`", remedy="see `modelyard schema`")
    problems += [((key,), f"unknown key {key!r}", suggest(key, _TOP)) for key in root if key not in _TOP]
    name, steps = root.get("name"), root.get("steps")
    if not isinstance(name, str):
        what = "`name` is missing" if name is None else "should be a word"
        problems.append((("name",), what, "name the pipeline, such as `name: reviews`"))
    if not isinstance(steps, dict) or not steps:
        problems.append((("steps",), "`steps` is missing or empty", "add steps, such as `reviews: {fetch: {dataset: …}}`"))
        steps = {}
    resources = _model(Resources, root.get("resources") or {}, ("resources",), problems)
    parsed = {key: step for key, value in steps.items() if (step := _step(value, ("steps", key), problems))}
    if steps:  # a name that is none was told above
        problems += _checked(name if isinstance(name, str) else "a", parsed, base, steps.keys() - parsed.keys())[1]
    if problems or not isinstance(name, str) or resources is None:
        raise _usage(problems, doc.at)
    return Pipeline(name, parsed, resources, base)


def schema() -> dict[str, Any]:
    """The JSON Schema of a pipeline file."""
    definitions = {verb: model.model_json_schema() for verb, model in STEPS.items()} | {"Resources": Resources.model_json_schema()}
    for definition in list(definitions.values()):
        definitions |= {name: inner for name, inner in definition.pop("$defs", {}).items() if name != "Resources"}
        definition["properties"].pop("resources", None)
    resources, name = {"$ref": "#/$defs/Resources"}, {"pattern": f"^{_NAME.pattern}$"}
    forms = [_closed([verb], {verb: {"$ref": f"#/$defs/{verb}"}, "resources": resources}) for verb in STEPS]
    steps = {"type": "object", "minProperties": 1, "propertyNames": name, "additionalProperties": {"oneOf": forms}}
    root = _closed(["name", "steps"], {"name": {"type": "string", **name}, "resources": resources, "steps": steps})
    return {"$schema": SCHEMA_ID, "title": "modelyard pipeline", **root, "$defs": dict(sorted(definitions.items()))}


def _closed(required: list[str], properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


_Model = TypeVar("_Model", bound=BaseModel)

_Problem = tuple[Location, str, str]
"""Where, what, remedy."""

_TOP = ("name", "resources", "steps")

_PYDANTIC = re.compile(r"^Value error, |^(?:Input|String|Tuple) (?=should )")
"""How its messages begin, which says nothing to who wrote the file."""
_SHAPES = {"model_type": "should be a mapping", "dict_type": "should be a mapping", "tuple_type": "should be a list"}
"""What it calls otherwise than YAML does."""


def _step(value: Any, location: Location, problems: list[_Problem]) -> Step | None:
    if not isinstance(value, dict):
        problems.append((location, "a step is a mapping of one verb to its settings", "such as {fetch: {dataset: …}}"))
        return None
    verbs = [key for key in value if key in STEPS]
    unknown = [key for key in value if key not in STEPS and key != "resources"]
    if not verbs and unknown:
        problems.append(((*location, unknown[0]), f"unknown step {unknown[0]!r}", suggest(unknown[0], STEPS)))
        return None
    problems += [((*location, key), f"unknown key {key!r} beside {verbs[0]!r}", suggest(key, ["resources", *STEPS])) for key in unknown if verbs]
    if len(verbs) != 1:
        problems.append((location, f"a step has one verb, not {len(verbs)}", f"one of {', '.join(STEPS)}"))
        return None
    settings = {} if value[verbs[0]] is None else value[verbs[0]]
    own = _model(Resources, value["resources"] or {}, (*location, "resources"), problems) if "resources" in value else None
    if isinstance(settings, dict) and "resources" in settings:
        problems.append(((*location, verbs[0], "resources"), "`resources` stands beside the verb, not under it", "move it one level up"))
        return None
    step = _model(STEPS[verbs[0]], settings, (*location, verbs[0]), problems)
    return step.model_copy(update={"resources": own}) if step and own else step


def _model(model: type[_Model], value: Any, location: Location, problems: list[_Problem]) -> _Model | None:
    if not isinstance(value, dict):
        problems.append((location, "should be a mapping of settings", f"such as {next(iter(model.model_fields))}: …"))
        return None
    try:
        return model.model_validate(value)
    except ValidationError as errors:
        problems += explain(errors, model, location)
        return None


def explain(errors: ValidationError, model: type[BaseModel], location: Location = ()) -> list[tuple[Location, str, str]]:
    """Pydantic's findings about settings in our words: where, what, remedy."""
    found = []
    for error in errors.errors(include_url=False):
        place = tuple(part for part in error["loc"] if isinstance(part, str | int))
        kind, (settings, name) = error["type"], _setting(model, place)
        described = info.description if (info := settings.model_fields.get(name)) else None
        remedy = f"{name}: {described}" if described else ""
        if kind == "extra_forbidden":
            remedy = suggest(name, [known for known in settings.model_fields if known != "resources"])
            found.append(((*location, *place), f"unknown setting {name!r}", remedy))
        elif kind == "missing":
            found.append(((*location, *place[:-1]), f"{name!r} is missing", remedy))
        else:
            given = error.get("input")
            message = _SHAPES.get(kind) or _PYDANTIC.sub("", error["msg"])
            told = kind in ("ref", "one", "input") or (isinstance(given, str) and repr(given) in message)
            if not told and isinstance(given, str | int | float | bool | None):
                message += f", not {_short(given)}"
            found.append(((*location, *place), message, _misspelt(error) or remedy))
    return found


def _setting(model: type[BaseModel], place: Location) -> tuple[type[BaseModel], str]:
    """The settings that an error is about, and which of them: what is in a gate is the gate's."""
    name = str(place[0]) if place else ""
    kind = model.model_fields[name].annotation if name in model.model_fields else None
    inner = next((one for one in (kind, *get_args(kind)) if isinstance(one, type) and issubclass(one, BaseModel)), None)
    return _setting(inner, place[1:]) if inner and len(place) > 1 else (model, name)


def _misspelt(error: ErrorDetails) -> str:
    """The word of a closed list that was meant, where one differs from what was given by a letter or two."""
    import difflib  # late: only who has erred pays for it

    given, allowed = error["input"], re.findall("'([^']+)'", str(error.get("ctx", {}).get("expected", "")))
    near = difflib.get_close_matches(given, allowed, n=1, cutoff=0.85) if isinstance(given, str) else []
    return f"did you mean {near[0]!r}?" if near else ""


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _checked(name: str, steps: Mapping[str, Step], base: Path | None, unread: Collection[str] = ()) -> tuple[Mapping[str, Step], list[_Problem]]:
    """Steps whose inputs are all names, and what is wrong with them. unread: names of further steps, of which no more is known."""
    problems = list(_check_names(name, [*steps, *unread]))
    if problems:
        return steps, problems
    linked, problems = _linked(steps, base or Path.cwd())
    return linked, [*problems, *_check_inputs(linked, unread)]


def _check_names(name: str, steps: Collection[str]) -> Iterator[_Problem]:
    remedy = "lower-case letters, digits and '-', beginning with a letter and not ending with '-'"
    if not _NAME.fullmatch(name):
        yield ("name",), f"{name!r} cannot be a pipeline's name", remedy
    for step in steps:
        if not isinstance(step, str) or not _NAME.fullmatch(step):
            yield ("steps", step), f"{step!r} cannot be a step's name", remedy
        elif len(name) + len(step) > _LONGEST:
            what = f"pipeline and step name are too long together ({len(name) + len(step)} letters)"
            yield ("steps", step), what, f"at most {_LONGEST}, so that Jobs can carry them"
    if not steps:
        yield ("steps",), "a pipeline needs a step", "add one"


def _linked(steps: Mapping[str, Step], base: Path) -> tuple[dict[str, Step], list[_Problem]]:
    """Steps whose inputs are all names; what stood there as a ref is a fetch step now."""
    names = {id(step): name for name, step in steps.items()}
    problems: list[_Problem] = []
    fetches: dict[str, Step] = {}
    linked: dict[str, Step] = {}
    for name, step in steps.items():
        update: dict[str, str] = {}
        for place, value in step.sources().items():
            kind, location = step.inputs[place], ("steps", name, step.verb, *place.split("."))
            if isinstance(value, Step) and id(value) in names:
                update[place] = names[id(value)]
            elif isinstance(value, Step):
                problems.append((location, f"the {value.verb} step given here is not one of the pipeline's", "add it to `steps`"))
            elif refs.is_step_name(value):
                update[place] = value
            elif kind not in ("model", "dataset"):
                problems.append((location, f"{value!r} is a ref", f"`{place}` takes the name of a step that makes {kind}"))
            else:
                try:
                    fetch = STEPS["fetch"].model_validate({kind: _absolute(value, base)})
                except ValidationError as errors:
                    problems += [(location, message, f"`{place}` takes a {kind}") for _, message, _ in explain(errors, STEPS["fetch"])]
                else:
                    update[place] = f"fetch-{digest([kind, fetch.settings()])[:8]}"
                    fetches[update[place]] = fetch
        own = {key: _absolute(value, base) for key in ("model", "dataset") if step.verb == "fetch" and (value := getattr(step, key))}
        linked[name] = step.with_sources(update).model_copy(update=own)
    return {**{name: step for name, step in fetches.items() if name not in linked}, **linked}, problems


def _absolute(ref: str, base: Path) -> str:
    return str((base / ref).absolute()) if isinstance(refs.parse(ref), refs.PathRef) else ref


def _check_inputs(steps: Mapping[str, Step], unread: Collection[str]) -> Iterator[_Problem]:
    needs: dict[str, set[str]] = {}
    for name, step in steps.items():
        for place, source in step.sources().items():
            kind, location = step.inputs[place], ("steps", name, step.verb, *place.split("."))
            if not isinstance(source, str) or not refs.is_step_name(source) or source in unread:
                continue  # reported when it was linked, or read
            if source not in steps:
                remedy = suggest(source, [*steps, *unread]) + "; a ref has a scheme, a path starts with ./ or /"
                yield location, f"there is no step {source!r}", remedy
            elif (made := steps[source].makes()) != kind:
                yield location, f"{source!r} makes {_a(made)}; `{place}` takes {_a(kind)}", "name another step"
            else:
                needs.setdefault(name, set()).add(source)
        if isinstance(step, Promote | Publish) and step.gate and isinstance(measured := steps.get(str(step.gate.metrics)), Evaluate):
            location, measures = ("steps", name, step.verb, "gate"), measured.measures()
            for metric in (metric for metric in step.gate.at_least if metric not in measures):
                yield (*location, "at_least", metric), f"{str(step.gate.metrics)!r} measures no {metric!r}", suggest(metric, measures)
            if step.gate.compares and measured.against is None:
                what = f"{str(step.gate.metrics)!r} measures one model alone: there is no champion to be compared with"
                yield (*location, "not_worse_than_champion"), what, "give it `against: yard://models/NAME@champion`"
    try:
        TopologicalSorter({name: sorted(sources) for name, sources in needs.items()}).prepare()
    except CycleError as error:
        cycle = error.args[1][::-1]
        yield ("steps", cycle[0]), f"the steps wait for each other: {' -> '.join(cycle)}", "break the circle"


def _a(kind: str | None) -> str:
    return "nothing" if kind is None else kind if kind == "metrics" else f"a {kind}"


def _usage(problems: list[_Problem], at: Callable[[Location], str]) -> Usage:
    """One failure for all problems: the first in its parts, the others as further lines."""
    location, what, remedy = problems[0]
    others = "".join(f"\n{at(place)}: {message}" + (f" ({hint})" if hint else "") for place, message, hint in problems[1:])
    return Usage(what + (f" ({remedy})" if others and remedy else "") + others, where=at(location), remedy="" if others else remedy)
