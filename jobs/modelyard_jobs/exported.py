"""What an export says of itself, beside its graph: all that is needed to run it without torch and transformers.

`export.json` (schema 2) holds
  schema, task          what it is
  model                 the class of transformers that it was
  opset, ir             of the graph, as ONNX counts them
  inputs, outputs       name -> its axes: a name is an axis of any size, a number a fixed one
  labels                the model's, in the order of their ids; none of a language model
  tried                 shapes that it was compared on: the size of each axis that has a name
  text                  null for a model of images, else
    max_length            tokens that the model has positions for
    pad                   id of the token that fills a batch up, on the right
    truncation_side       where a longer text is cut
    split_special_tokens  whether the name of a special token in a text is read as plain text
The tokenizer is tokenizer.json; how images are prepared stands in the model's own preprocessor_config.json. Nothing in it was measured: it follows
from the model, the settings and the rows.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from modelyard.errors import BadData
from modelyard.steps import Task
from modelyard.yard import Artifact

NAME = "export.json"
GRAPH = "model.onnx"
INT8 = "model_int8.onnx"
TOKENIZER = "tokenizer.json"


class Text(BaseModel):
    """How texts become tokens, beside the tokenizer."""

    model_config = ConfigDict(frozen=True)

    max_length: int = Field(ge=1)
    pad: int = Field(ge=0)
    truncation_side: Literal["left", "right"]
    split_special_tokens: bool


class Description(BaseModel):
    """The content of export.json."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    version: Literal[2] = Field(2, alias="schema")
    task: Task
    model: str
    opset: int
    ir: int
    inputs: dict[str, tuple[str | int, ...]]
    outputs: dict[str, tuple[str | int, ...]]
    labels: tuple[str, ...]
    tried: tuple[dict[str, int], ...]
    text: Text | None = None

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
