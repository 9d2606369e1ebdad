"""A served folder in a process of its own, and the hubs' own clients, unmodified, each in a process with a fresh home."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import urllib3

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
TOKEN = "a-token-of-this-test-0123456789"
WEIGHTS = bytes(range(256)) * 4096 * 3  # 3 MiB: several chunks, and more than any client sends inline

MODEL = {
    "README.md": b"---\nlicense: apache-2.0\npipeline_tag: text-classification\n---\n# bert\n\nA small model of films.\n",
    "config.json": b'{"model_type": "bert"}\n',
    "model.safetensors": WEIGHTS,
    "sub/vocab.txt": b"a\nb\n",
}
DATA = {
    "README.md": b"---\nlicense: mit\ntask_categories:\n- text-classification\n---\n",
    "train.csv": b"text,label\ngood,1\n",
    "test.csv": b"text,label\n",
}

LEFT_OUT = ("MODELSCOPE_", "HF_", "MODELYARD_", "HUGGING", "TRANSFORMERS_")


@dataclass(frozen=True)
class Served:
    """A served hub. home: of the clients."""

    url: str
    folder: Path
    home: Path
    log: Path
    process: subprocess.Popen[str]

    def environ(self, token: str | None = None) -> dict[str, str]:
        """What a client sees: this hub behind both names, caches in its home, the token where one is given."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(LEFT_OUT)}
        tokens = {"MODELSCOPE_API_TOKEN": token, "HF_TOKEN": token} if token else {}
        return {
            **kept,
            "HOME": str(self.home),
            "MODELSCOPE_ENDPOINT": self.url,
            "MODELSCOPE_CACHE": str(self.home / "modelscope"),
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(self.home / "hf"),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_XET": "1",
            "no_proxy": "127.0.0.1",
            **tokens,
        }

    def run(self, *command: str, token: str | None = None, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """A client's command, by its name in this environment."""
        environ = {**self.environ(token), **(env or {})}
        return subprocess.run(
            [str(BIN / command[0]), *command[1:]], capture_output=True, text=True, env=environ, cwd=self.home, timeout=100, check=False
        )

    def python(self, script: str, *arguments: str, token: str | None = None, env: Mapping[str, str] | None = None) -> Any:
        """A script in a process of its own; `show(value)` in it gives what this returns. A script that fails fails the test."""
        head = "import json, sys\ndef show(value): print('\\n=>' + json.dumps(value, default=str))\n"
        done = self.run("python", "-c", head + script, *arguments, token=token, env=env)
        assert done.returncode == 0, done.stderr[-3000:]
        shown = [line for line in done.stdout.splitlines() if line.startswith("=>")]
        assert shown, done.stdout + done.stderr[-3000:]
        return json.loads(shown[-1][2:])

    def request(self, method: str, path: str, *, token: str | None = None, **more: Any) -> urllib3.BaseHTTPResponse:
        """One request as it is written, no retries."""
        headers = {**({"Authorization": f"Bearer {token}"} if token else {}), **more.pop("headers", {})}
        return urllib3.PoolManager(retries=False).request(method, self.url + path, headers=headers, **more)

    def requests(self) -> list[str]:
        """The server's access log. A line is written once its answer has gone out: those before ours are there when ours is."""
        mark = f"/mark/{uuid.uuid4().hex}"
        self.request("GET", mark)
        while mark not in (lines := self.log.read_text()):
            time.sleep(0.01)
        methods = ("GET", "HEAD", "POST", "PUT", "DELETE")
        return [line for line in lines.splitlines() if line.split(" ")[0] in methods and " /mark/" not in line]


def write(folder: Path, files: Mapping[str, bytes]) -> None:
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)


@contextmanager
def serving(folder: Path, place: Path, token: str | None = TOKEN, env: Mapping[str, str] | None = None, port: int = 0) -> Iterator[Served]:
    """Serve a folder for a while. place: an empty folder for the client's home, the log and the token's file."""
    home, log, token_file = place / "home", place / "server.log", place / "token"
    home.mkdir(parents=True)
    options = []
    if token:
        token_file.write_text(token + "\n")
        token_file.chmod(0o600)
        options = ["--token-file", str(token_file)]
    command = [sys.executable, "-m", "modelyard", "hub", "serve", str(folder), "--port", str(port), *options]
    with (
        log.open("w") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env={**os.environ, **(env or {})}) as server,
    ):
        try:
            assert server.stdout
            url = server.stdout.readline().strip()
            assert url.startswith("http://127.0.0.1:"), log.read_text()
            yield Served(url, folder, home, log, server)
        finally:
            if server.poll() is None:
                server.send_signal(signal.SIGTERM)
                server.wait(20)
