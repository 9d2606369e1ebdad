"""What can be wrong with modelyard.toml, each with the class that it ends in."""

from __future__ import annotations

from dataclasses import dataclass

from modelyard.errors import NoInput, Usage

from .operators import ACCEPTED, SECRET

GOOD = 'on = "kubernetes"\nnamespace = "team"\n'


@dataclass(frozen=True)
class Table:
    """content: of the file. expected: the exit code. says: words of the message."""

    name: str
    expected: int
    content: bytes
    says: str = ""


def _with(name: str, expected: int, text: str, says: str = "") -> Table:
    return Table(name, expected, (GOOD + text).encode(), says)


BAD = Usage.exit_code
TABLES = [
    _with("as it should be", ACCEPTED, ""),
    _with("unknown key", BAD, 'namespaces = "team"', "did you mean"),
    _with("unknown hub", BAD, '[hubs]\nhugginface = "https://huggingface.co"', "did you mean"),
    _with("unknown table", BAD, '[hub]\nmodelscope = "https://modelscope.cn"'),
    _with("duplicate key", BAD, 'namespace = "other"', "TOML"),
    _with("a number", BAD, "image = 3"),
    _with("a list", BAD, 'queue = ["a"]'),
    _with("empty text", BAD, 'queue = ""'),
    _with("hubs a text", BAD, 'hubs = "https://modelscope.cn"'),
    _with("hub a table", BAD, "[hubs.modelscope]\nx = 1"),
    _with("no quotes", BAD, "queue = team", "TOML"),
    _with("torn", BAD, 'queue = "te', "TOML"),
    _with("claim a path", BAD, 'yard = "../yard"', "claim"),
    _with("claim in capitals", BAD, 'yard = "Yard"', "claim"),
    _with("claim missing", NoInput.exit_code, 'yard = "other"', "yard create"),
    _with("image with a digest", BAD, f'image = "modelyard@sha256:{"a" * 64}"', "image"),
    _with("image in capitals", BAD, 'image = "ModelYard"', "image"),
    _with("image with a newline", BAD, 'image = "modelyard\\nx"', "image"),
    _with("hub with a token", BAD, f'[hubs]\nhuggingface = "https://me:{SECRET}@huggingface.co"', "token"),
    _with("hub with a query", BAD, f'[hubs]\nhuggingface = "https://huggingface.co?token={SECRET}"'),
    _with("hub a folder", BAD, '[hubs]\nmodelscope = "./hub"', "hub serve"),
    _with("hub of this machine", BAD, '[hubs]\nmodelscope = "http://localhost:8000"'),
    _with("hub without a host", BAD, '[hubs]\nmodelscope = "http://"'),
    _with("queue no label", BAD, 'queue = "a b"'),
    Table("not UTF-8", BAD, GOOD.encode() + b'queue = "\xff"', "TOML"),
    Table("NUL", BAD, GOOD.encode() + b'queue = "\0"', "TOML"),
    Table("place unknown", BAD, b'on = "kubernets"', "did you mean"),
    Table("on a boolean", BAD, b"on = true"),
]
