"""Who may do what on a served hub: one token, which may do all; without it, public repositories can be read.

A hub that was given no token takes no writes from anybody, and its private and gated repositories are read by nobody. The token comes as
`Authorization: Bearer`, or as the cookie that ModelScope's SDK sets; it is compared in constant time and is in no message. Addresses for uploads
are signed with it for a day, because Hugging Face's clients send no token there.
"""

from __future__ import annotations

import hashlib
import hmac
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from modelyard.errors import NoInput, NoPermission, Usage
from modelyard.hubs.source import Repo

if TYPE_CHECKING:
    from starlette.requests import Request

COOKIE = "m_session_id"
USER = "modelyard"
"""What the one user of a hub is called where a protocol asks for a name."""

SIGNED_SECONDS = 86_400
_LONGEST = 4096
_SHORTEST = 8


class Auth:
    """The rule of one server. secret: its token, None for a hub that takes no writes."""

    def __init__(self, secret: str | None, *, now: Callable[[], float] = time.time) -> None:
        self._secret = secret.encode() if secret else None
        self._now = now

    @property
    def writable(self) -> bool:
        """Whether anybody may write."""
        return self._secret is not None

    def offered(self, request: Request) -> str | None:
        """The token that a request bears, whether it is right or not."""
        scheme, _, value = request.headers.get("authorization", "").partition(" ")
        return (value.strip() if scheme.lower() in ("bearer", "token") else "") or request.cookies.get(COOKIE) or None

    def knows(self, token: str | None) -> bool:
        """Whether this is the token."""
        return self._secret is not None and token is not None and hmac.compare_digest(token.encode("utf-8", "surrogatepass"), self._secret)

    def trusted(self, request: Request) -> bool:
        """Whether the request bears the right token."""
        return self.knows(self.offered(request))

    def check_read(self, request: Request, repo: Repo) -> None:
        """Raise NoPermission unless the request may read the repository's files."""
        if repo.guarded and not self.trusted(request):
            raise self._denied(request, f"{repo.id} is {'private' if repo.private else 'gated'}")

    def check_write(self, request: Request) -> None:
        """Raise NoPermission unless the request may write."""
        if not self.trusted(request):
            raise self._denied(request, "this call writes")

    def status(self, request: Request) -> int:
        """The HTTP status of a NoPermission: 401 where a token would help, 403 where the one that came is wrong, or none can help."""
        return 401 if self.writable and not self.offered(request) else 403

    def sign(self, text: str) -> str:
        """`expires.signature` for a text, good for SIGNED_SECONDS. Raises NoPermission: there is no token to sign with."""
        expires = str(int(self._now()) + SIGNED_SECONDS)
        return f"{expires}.{self._signature(text, expires)}"

    def signed(self, text: str, signature: str) -> bool:
        """Whether `sign` gave this for this text, and not too long ago."""
        expires, _, mark = signature.partition(".")
        if self._secret is None or not (expires.isascii() and expires.isdigit()) or len(expires) > 15:
            return False
        return int(expires) >= self._now() and hmac.compare_digest(self._signature(text, expires).encode(), mark.encode("utf-8", "surrogatepass"))

    def _signature(self, text: str, expires: str) -> str:
        if self._secret is None:
            raise NoPermission("this hub is read-only", why="it was started without --token-file", remedy="start it with one")
        return hmac.new(self._secret, f"upload\n{expires}\n{text}".encode(), hashlib.sha256).hexdigest()

    def _denied(self, request: Request, why: str) -> NoPermission:
        if not self.writable:
            return NoPermission(
                "this hub has no token: it is read-only, and shows public repositories alone", why=why, remedy="start it with --token-file"
            )
        if self.offered(request):
            return NoPermission("the token is not the hub's", why=why, remedy="use the token in the file that the hub was started with")
        return NoPermission("a token is needed", why=why, remedy="log in, or set MODELSCOPE_API_TOKEN or HF_TOKEN")


def read_token(path: Path, warn: Callable[[str], None]) -> str:
    """The token in a file: its one line. Raises NoInput, NoPermission: it cannot be read; Usage: what is in it is no token."""
    try:
        with path.open("rb") as file:
            mode, data = stat.S_IMODE(path.stat().st_mode), file.read(_LONGEST + 1)
    except FileNotFoundError as error:
        raise NoInput(f"there is no file {path}", where="--token-file", remedy="write the token into it, and chmod 600 it") from error
    except OSError as error:
        raise NoPermission(f"{path} cannot be read", where="--token-file", why=error.strerror or "", remedy="let this user read it") from error
    token = data.decode("utf-8", "replace").strip()
    if not _SHORTEST <= len(token) <= _LONGEST or not token.isascii() or not token.isprintable() or " " in token:
        why = f"one line of {_SHORTEST} to {_LONGEST} printable ASCII characters without spaces is expected"
        raise Usage(
            f"{path} holds no token", where="--token-file", why=why, remedy="python -c 'import secrets; print(secrets.token_urlsafe())' > FILE"
        )
    if mode & 0o077:
        warn(f"warning: others may read {path} (mode {mode:o}); chmod 600 it")
    return token
