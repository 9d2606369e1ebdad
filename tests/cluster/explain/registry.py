"""A registry of images that has none: one of its repositories does not know what it is asked for, the other one lets nobody in.

Node-side programs take a registry at 127.0.0.1 over plain HTTP, so that one runs in the network namespace of each node, at the node's own loopback.
Run as a program, this file is that server.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT = 5077
ADDRESS = f"127.0.0.1:{PORT}"
ABSENT, PRIVATE = f"{ADDRESS}/team/absent", f"{ADDRESS}/team/private"
"""Repositories, as `image` takes them: a version and `-light` follow."""


@contextmanager
def serving(namespaces: list[str]) -> Iterator[None]:
    """Such a registry in each of the network namespaces."""
    with ExitStack() as stack:
        for namespace in namespaces:
            command = ["nsenter", f"--net=/run/netns/{namespace}", sys.executable, __file__]
            process = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
            stack.callback(process.kill)
            assert process.stdout
            assert process.stdout.readline() == "serving\n"
        yield


class Registry(BaseHTTPRequestHandler):
    """Answers as registries do: 404, or 401 with the address at which a login would give a token, which refuses every login."""

    def do_GET(self) -> None:
        """Any question."""
        if "absent" in self.path:
            self._answer(404, "MANIFEST_UNKNOWN", "manifest unknown")
        elif self.path.startswith("/token"):
            self._answer(401, "UNAUTHORIZED", "incorrect username or password")
        else:
            self._answer(401, "UNAUTHORIZED", "authentication required")

    do_HEAD = do_POST = do_GET  # noqa: N815  # the base class's names

    def _answer(self, status: int, code: str, message: str) -> None:
        body = json.dumps({"errors": [{"code": code, "message": message}]}).encode()
        self.send_response(status)
        if status == 401 and not self.path.startswith("/token"):
            self.send_header("WWW-Authenticate", f'Bearer realm="http://{ADDRESS}/token",service="registry"')
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing: nobody reads it."""


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", PORT), Registry)
    sys.stdout.write("serving\n")
    sys.stdout.flush()
    server.serve_forever()
