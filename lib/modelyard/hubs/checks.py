"""What a listing must be before anything of it is written.

Names come from outside and become paths of a volume that others read; they follow the rules of the yard that will hold them. Nothing is repaired:
a listing with one bad name is refused whole, because a repository that is taken in part is another repository.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from modelyard.errors import NoInput, Refused
from modelyard.quantities import format_bytes
from modelyard.yard import check_paths

MAX_BYTES = 2**50
"""A pebibyte: more than any repository holds, and far from where sums of sizes stop being exact."""

_SHA256 = re.compile(r"[0-9a-f]{64}")


def check(ref: str, entries: Sequence[tuple[str, int, str | None]]) -> None:
    """Accept a listing of (path, size in bytes, sha256 or None), or say what is wrong with it.

    Raises NoInput: it is empty. Refused: a name, a size, a hash, the number of files or the sum of sizes is not acceptable.
    """
    if not entries:
        raise NoInput("there are no files in it", where=ref, remedy="put them there, or correct the ref")
    check_paths((path for path, _, _ in entries), ref)
    for path, size, sha256 in entries:
        if size < 0:
            raise _refused(ref, f"{path!r} has the size {size}", "a size is a number of bytes")
        if sha256 is not None and not _SHA256.fullmatch(sha256):
            raise _refused(ref, f"{path!r} has no sha256 but {sha256[:80]!r}", "64 lower-case hexadecimal digits are expected")
    total = sum(size for _, size, _ in entries)
    if total > MAX_BYTES:
        raise _refused(ref, f"its files sum up to {format_bytes(total)}", f"at most {format_bytes(MAX_BYTES)} is accepted")


def _refused(ref: str, what: str, why: str) -> Refused:
    return Refused(what, where=ref, why=why, remedy="do not use this repository, or have its owner correct it")
