"""What an export says of itself, beside its graph: all that is needed to run it without torch and transformers.

`export.json` (schema 1) holds
  schema, task          what it is
  opset, ir             of the graph, as ONNX counts them
  inputs, outputs       name -> its axes: a name is an axis of any size, a number a fixed one
  labels                in the order of their ids
  max_length            tokens that the model has positions for
  tried                 the largest batch, and the longest row in tokens, that it was compared on
  pad                   id of the token that fills a batch up, on the right
  truncation_side       where a longer text is cut
  split_special_tokens  whether the name of a special token in a text is read as plain text
Nothing in it was measured: it follows from the model and the settings.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from modelyard.errors import BadData
from modelyard.yard import Artifact

NAME = "export.json"
GRAPH = "model.onnx"
INT8 = "model_int8.onnx"
TOKENIZER = "tokenizer.json"


class Tried(BaseModel):
    """The extent of the comparison."""

    model_config = ConfigDict(frozen=True)

    rows: int
    tokens: int


class Description(BaseModel):
    """The content of export.json."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    version: Literal[1] = Field(1, alias="schema")
    task: Literal["text-classification"] = "text-classification"
    opset: int
    ir: int
    inputs: dict[str, tuple[str | int, ...]]
    outputs: dict[str, tuple[str | int, ...]]
    labels: tuple[str, ...] = Field(min_length=2)
    max_length: int = Field(ge=1)
    tried: Tried
    pad: int = Field(ge=0)
    truncation_side: Literal["left", "right"]
    split_special_tokens: bool

    def json_text(self) -> str:
        """As the file holds it."""
        return self.model_dump_json(by_alias=True, indent=1) + "\n"


def read(artifact: Artifact) -> Description:
    """The description of an export; BadData where there is none."""
    try:
        return Description.model_validate_json((artifact.path / NAME).read_bytes())
    except FileNotFoundError as error:
        remedy = "export a finetuned model, and give the result"
        raise BadData(f"the model has no {NAME}", where=artifact.digest, why="that is what says how its ONNX is run", remedy=remedy) from error
    except ValidationError as error:
        first = error.errors()[0]
        why = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise BadData("the description of the export cannot be used", where=f"{artifact.digest}: {NAME}", why=why, remedy="export again") from error
