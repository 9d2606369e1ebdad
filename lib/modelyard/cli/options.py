"""Options made from settings: one `--option` for each field of a model of steps.py, named, described and typed by it.

An option that is not given is not passed on, so that the model's own default holds, and `Resources` knows what was asked for. What click can
check it checks (numbers, choices); bounds and the rest are the model's, whose findings come back under the option's name.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import click
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from modelyard import quantities, refs
from modelyard.errors import Usage
from modelyard.spec import explain

_Model = TypeVar("_Model", bound=BaseModel)
_FILES_ONLY = frozenset({"resources", "gate", "tolerations", "overlay"})
"""Settings that have settings of their own: they are written in a file."""


def options(model: type[BaseModel]) -> list[click.Option]:
    """The options of every setting of a step, or of Resources, in their order; a step's `resources` are options of their own."""
    return [_option(name, info) for name, info in model.model_fields.items() if name not in _FILES_ONLY]


def build(model: type[_Model], given: Mapping[str, Any], where: str) -> _Model:
    """The settings that the options in `given` make. where: the command, for messages. Raises Usage with the option that is wrong."""
    values = {name: given[name] for name in model.model_fields if given.get(name) not in (None, ())}
    for name in getattr(model, "inputs", ()):
        if refs.is_step_name(values.get(name, "")):
            remedy = "a ref has a scheme (modelscope://owner/name), a path starts with ./ or /"
            raise Usage(f"{flag(name)}: {values[name]!r} is a bare word", where=where, remedy=remedy)
    try:
        return model.model_validate(values, strict=False)
    except ValidationError as errors:
        place, what, remedy = explain(errors, model)[0]
        option = f"{flag(str(place[0]))}: " if place else ""
        raise Usage(option + what.replace("`", ""), where=where, remedy=remedy or f"{where} --help") from errors


def flag(name: str) -> str:
    """`--batch-size` for `batch_size`."""
    return "--" + name.replace("_", "-")


def duration(text: str) -> int:
    """Seconds of a duration, such as 90s or 2h: a type of options."""
    try:
        return quantities.parse_seconds(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def _option(name: str, info: FieldInfo) -> click.Option:
    kind, multiple = _type(Annotated[info.annotation, None, *info.metadata])
    text = (info.description or "").replace("`", "") + ("; may be given again." if multiple else ".")
    if not multiple and not info.is_required() and info.default is not None and kind is not bool:
        text += f" [default: {info.default}]"
    arguments: dict[str, Any] = {"is_flag": True, "default": None} if kind is bool else {"type": kind, "multiple": multiple}
    return click.Option([flag(name), name], required=info.is_required(), help=text[:1].upper() + text[1:], **arguments)


def _type(annotation: Any) -> tuple[Any, bool]:
    """The type in click for the annotation of a field, and whether it may be given more than once."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated and any(hasattr(extra, "func") for extra in arguments[1:]):
        return str, False  # written in a form of its own, which the model reads
    if origin in (Annotated, Union, UnionType):
        return _type(arguments[0])  # what else may be there is None
    if origin is tuple:
        return _type(arguments[0])[0], True
    return (click.Choice(arguments) if origin is Literal else annotation), False
