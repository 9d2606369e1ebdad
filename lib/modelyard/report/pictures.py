"""Pictures of an artifact as data URIs, so that the page asks for nothing; few and small, or the page would not open.

Only PNG and JPEG, by their first bytes and not by their names: an SVG could hold more than a picture. They are not decoded here; the browser does
that, and shows the words beside a picture where it cannot.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from modelyard.errors import Corrupt
from modelyard.quantities import format_bytes
from modelyard.yard import Artifact, files

OF_STEP = 24
"""Pictures of a step at most."""
LARGEST = 2_000_000
"""Bytes of a picture at most."""
ROOM = 8_000_000
"""Bytes of all pictures of a page at most."""
_PATH = re.compile(r"pictures/[A-Za-z0-9_-][A-Za-z0-9._-]*")
_KINDS = {b"\x89PNG\r\n\x1a\n": "png", b"\xff\xd8\xff": "jpeg"}


@dataclass
class Album:
    """What a page has taken so far. missing: why others are not there."""

    missing: list[str]
    room: int = field(default=ROOM)

    def of(self, step: str, artifact: Artifact, paths: Sequence[str]) -> dict[str, str]:
        """Path -> data URI, of the first OF_STEP of the paths as far as they are pictures and there is room."""
        sizes = {entry.path: entry.size for entry in artifact.files}
        found: dict[str, str] = {}
        for path in list(dict.fromkeys(filter(None, paths)))[:OF_STEP]:
            why = self._refused(path, sizes)
            if not why:
                try:
                    data = files.read(artifact.path / path) or b""
                except Corrupt as error:
                    why = error.why
                else:
                    kind = next((kind for magic, kind in _KINDS.items() if data.startswith(magic)), None)
                    why = "" if kind else "it is neither PNG nor JPEG"
            if why:
                self.missing.append(f"{step}: the picture {path[:80]} is not shown: {why}")
                continue
            self.room -= len(data)
            found[path] = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
        return found

    def _refused(self, path: str, sizes: dict[str, int]) -> str:
        if not _PATH.fullmatch(path) or path not in sizes:
            return "it is no picture of the artifact"
        if sizes[path] > LARGEST:
            return f"it has {format_bytes(sizes[path])}; {format_bytes(LARGEST)} are taken at most"
        return f"the page has {format_bytes(ROOM)} of pictures already" if sizes[path] > self.room else ""
