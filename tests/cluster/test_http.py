"""The client against a server that is none of the best: over real sockets on loopback, without a cluster and without root."""

from __future__ import annotations

import json
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from modelyard.errors import NoInput, NoPermission, Unavailable, Usage
from modelyard.kube import http
from modelyard.kube.client import Client, connect
from modelyard.kube.cluster import Cause

TOKEN = "s3cret-token-of-a-person"
CONFIG = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}


def status(code: int, reason: str, message: str = "", **details: Any) -> tuple[int, bytes, dict[str, str]]:
    body = {"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message, "details": details}
    return code, json.dumps(body).encode(), {}


OK = (200, json.dumps(CONFIG).encode(), {})
Answer = tuple[int, bytes, dict[str, str]] | Callable[["Handler"], object]


@dataclass
class Server:
    """Gives its answers one after the other, the last again and again."""

    answers: list[Answer] = field(default_factory=lambda: [OK])
    asked: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)
    address: str = ""


class Handler(BaseHTTPRequestHandler):
    server_of: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        served = self.server_of
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        served.asked.append((self.command, self.path, {name.lower(): value for name, value in self.headers.items()}, body))
        answer = served.answers.pop(0) if len(served.answers) > 1 else served.answers[0]
        if callable(answer):
            answer(self)
            self.close_connection = True
            return
        code, content, headers = answer
        self.send_response(code)
        for name, value in headers.items():
            for one in value.split("\n"):
                self.send_header(name, one)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_PATCH = do_DELETE = do_GET  # noqa: N815  # http.server's

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    served = Server()

    class Bound(Handler):
        server_of = served

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Bound)
    listening.daemon_threads = True
    threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    served.address = f"http://127.0.0.1:{listening.server_port}"
    yield served
    listening.shutdown()
    listening.server_close()


def kubeconfig(path: Path, address: str, user: dict[str, Any], **cluster: Any) -> None:
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "clusters": [{"name": "here", "cluster": {"server": address, **cluster}}],
        "users": [{"name": "me", "user": user}],
        "contexts": [{"name": name, "context": {"cluster": "here", "user": "me", **more}} for name, more in CONTEXTS.items()],
    }
    path.write_text(json.dumps(document))


CONTEXTS: dict[str, dict[str, str]] = {"here": {"namespace": "team"}, "bare": {}}


@pytest.fixture
def config(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "kubeconfig"
    (tmp_path / "token").write_text(TOKEN)
    kubeconfig(path, server.address, {"tokenFile": str(tmp_path / "token")})
    monkeypatch.setenv("KUBECONFIG", str(path))
    monkeypatch.setattr(http, "SILENCE", 0.5)
    return path


@pytest.fixture
def client(config: Path) -> Client:
    return connect(patience=5)


def reset(handler: Handler) -> None:
    """The connection is gone before a word was said."""
    handler.connection.close()


def torn(handler: Handler) -> None:
    """Half an answer."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{")
    handler.wfile.flush()
    handler.connection.close()


def silent(handler: Handler) -> None:
    threading.Event().wait(1.5)


@pytest.mark.parametrize(
    "bad",
    [
        status(503, "ServiceUnavailable"),
        status(500, "InternalError", "etcdserver: request timed out"),
        status(429, "TooManyRequests"),
        status(409, "Conflict", "quota was changed"),
        (200, b"<html>log in</html>", {}),
        (502, b"\x00garbage", {}),
        reset,
        torn,
        silent,
    ],
    ids=["503", "500", "429", "409", "no JSON", "502", "reset", "torn", "silent"],
)
def test_what_passes_is_tried_again(server: Server, client: Client, bad: Answer) -> None:
    server.answers = [bad, bad, OK]
    assert client.create(CONFIG) == CONFIG
    assert len(server.asked) == 3
    assert all(json.loads(body) == CONFIG for *_, body in server.asked)


def test_the_servers_wish_to_wait_is_heeded(server: Server, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    paused: list[float] = []
    monkeypatch.setattr("tenacity.nap.time.sleep", paused.append)
    code, content, _ = status(429, "TooManyRequests")
    server.answers = [(code, content, {"Retry-After": "3"}), OK]
    assert client.get("ConfigMap", "a") == CONFIG
    assert paused == [3.0]


def test_patience_ends(server: Server, config: Path) -> None:
    code, content, _ = status(429, "TooManyRequests", f"slow down, {TOKEN}")
    server.answers = [(code, content, {"Retry-After": "3600"})]
    with pytest.raises(Unavailable) as raised:
        connect(patience=1).get("ConfigMap", "a")
    assert server.address in str(raised.value)
    assert "slow down, [token]" in str(raised.value)
    assert len(server.asked) == 1


def test_nobody_listens(config: Path, tmp_path: Path) -> None:
    kubeconfig(config, "http://127.0.0.1:9", {"token": TOKEN})
    with pytest.raises(Unavailable, match="127.0.0.1:9.*does not answer"):
        connect(patience=0.5).get("ConfigMap", "a")


def test_a_token_that_rotated_is_read_anew(server: Server, client: Client, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("the-next-token")
    server.answers = [status(401, "Unauthorized"), OK]
    assert client.get("ConfigMap", "a") == CONFIG
    assert [headers["authorization"] for _, _, headers, _ in server.asked] == [f"Bearer {TOKEN}", "Bearer the-next-token"]


def test_a_credential_plugin_is_run_again(server: Server, config: Path, tmp_path: Path) -> None:
    plugin = tmp_path / "plugin"
    plugin.write_text(
        f"#!/bin/sh\necho x >> {tmp_path}/runs\n"
        'echo "{\\"apiVersion\\": \\"client.authentication.k8s.io/v1\\", \\"kind\\": \\"ExecCredential\\",'
        f' \\"status\\": {{\\"token\\": \\"token-$(wc -l < {tmp_path}/runs | tr -d \' \')\\"}}}}"\n'
    )
    plugin.chmod(0o755)
    user = {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": str(plugin), "interactiveMode": "Never"}}
    kubeconfig(config, server.address, user)
    client = connect(patience=5)
    server.answers = [status(401, "Unauthorized"), OK]
    assert client.get("ConfigMap", "a") == CONFIG
    assert [headers["authorization"] for _, _, headers, _ in server.asked] == ["Bearer token-1", "Bearer token-2"]


def test_a_token_that_stays_refused_is_named_as_that_and_not_told(server: Server, client: Client) -> None:
    server.answers = [status(401, "Unauthorized", f"token {TOKEN} is over")]
    with pytest.raises(NoPermission) as raised:
        client.get("ConfigMap", "a")
    assert len(server.asked) == 2
    assert "token [token] is over" in str(raised.value)
    assert TOKEN not in str(raised.value.record())


def test_a_missing_right_names_the_rule(server: Server, client: Client) -> None:
    server.answers = [status(403, "Forbidden", 'jobs.batch is forbidden: User "me" cannot create resource "jobs" in API group "batch"')]
    with pytest.raises(NoPermission) as raised:
        client.create({**CONFIG, "apiVersion": "batch/v1", "kind": "Job"})
    assert raised.value.what == "may not create jobs.batch"
    assert 'User "me" cannot create' in raised.value.why
    assert '{apiGroups: ["batch"], resources: ["jobs"], verbs: ["create"]}' in raised.value.remedy
    assert "kubectl auth can-i create jobs.batch" in raised.value.remedy
    assert len(server.asked) == 1


def test_what_a_server_refuses_that_has_just_come_back_is_asked_again(server: Server, client: Client) -> None:
    server.answers = [reset, status(403, "Forbidden", 'User "me" cannot get resource "configmaps"'), OK]
    assert client.get("ConfigMap", "a") == CONFIG


def test_every_cause_is_told(server: Server, client: Client) -> None:
    causes = [{"field": "spec.a", "message": "must be 1"}, {"field": "spec.b", "message": "is missing"}]
    server.answers = [status(422, "Invalid", "two things", causes=causes)]
    with pytest.raises(Usage, match=r"spec.a: must be 1; spec.b: is missing"):
        client.create(CONFIG)
    answer = client.dry_run(CONFIG)
    assert list(answer.causes) == [Cause("spec.a", "must be 1"), Cause("spec.b", "is missing")]
    server.answers = [status(400, "BadRequest", 'strict decoding error: unknown field "spec.foo", duplicate field "spec.bar"')]
    assert list(client.dry_run(CONFIG).causes) == [Cause("spec.foo", "unknown field"), Cause("spec.bar", "duplicate field")]


def test_warnings_are_heard(server: Server, client: Client) -> None:
    server.answers = [(201, OK[1], {"Warning": '299 - "would violate \\"restricted\\": x"\n299 - "deprecated"'})]
    answer = client.dry_run(CONFIG)
    assert list(answer.warnings) == ['would violate "restricted": x', "deprecated"]
    assert not answer.causes


def test_one_of_that_name_is_none_of_ours_and_no_objection(server: Server, client: Client) -> None:
    server.answers = [status(409, "AlreadyExists", 'configmaps "a" already exists')]
    assert client.create(CONFIG) is None
    assert not client.dry_run(CONFIG).causes
    assert len(server.asked) == 2


def test_a_namespace_that_is_not_there(server: Server, client: Client) -> None:
    server.answers = [status(404, "NotFound", 'namespaces "team" not found')]
    with pytest.raises(NoInput, match="no namespace 'team'"):
        client.create(CONFIG)
    assert client.get("ConfigMap", "a") is None


def test_requests_are_strict_and_signed(server: Server, client: Client) -> None:
    client.create(CONFIG)
    client.patch("ConfigMap", "a", {"data": {"x": None}})
    client.delete("Job", "j", uid="u", wait_for_pods=True)
    client.list("Pod", {"a": "1", "b": "2"}, fields={"metadata.name": "x"})
    (post, patch, delete, listing) = server.asked
    assert post[:2] == ("POST", "/api/v1/namespaces/team/configmaps?fieldValidation=Strict&fieldManager=modelyard")
    assert patch[2]["content-type"] == "application/merge-patch+json"
    assert json.loads(patch[3]) == {"data": {"x": None}}
    assert delete[:2] == ("DELETE", "/apis/batch/v1/namespaces/team/jobs/j")
    assert json.loads(delete[3])["preconditions"] == {"uid": "u"}
    assert json.loads(delete[3])["propagationPolicy"] == "Foreground"
    assert "labelSelector=a%3D1%2Cb%3D2&fieldSelector=metadata.name%3Dx" in listing[1]


def test_pages_and_their_end_in_between(server: Server, client: Client) -> None:
    def page(names: list[str], more: str = "") -> Answer:
        items = [{"metadata": {"name": name}} for name in names]
        return 200, json.dumps({"kind": "List", "metadata": {"continue": more}, "items": items}).encode(), {}

    server.answers = [page(["a"], "next"), status(410, "Expired"), page(["a", "b"])]
    assert [found["metadata"]["name"] for found in client.list("Pod")] == ["a", "b"]
    assert "continue=next" in server.asked[1][1]
    assert "limit" not in server.asked[2][1]


@pytest.mark.parametrize("ending", [b"6\r\n2 two\n\r\n0\r\n\r\n", b"5\r\n2 two\r\n"], ids=["whole", "broken"])
def test_a_stream_ends_with_its_last_whole_line(server: Server, client: Client, ending: bytes) -> None:
    def streams(handler: Handler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\n1 one\n\r\n" + ending)
        handler.wfile.flush()
        handler.connection.close()

    server.answers = [streams]
    assert list(client.logs("pod", follow=True, since="2026-01-01T00:00:00.1Z")) == [b"1 one", *([b"2 two"] if b"0\r\n" in ending else [])]
    assert "follow=true&sinceTime=2026-01-01T00%3A00%3A00.1Z" in server.asked[0][1]


def test_a_certificate_that_does_not_fit_is_asked_once(config: Path, tmp_path: Path) -> None:
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-keyout",
            tmp_path / "key",
            "-out",
            tmp_path / "cert",
            "-days",
            "1",
            "-subj",
            "/CN=other",
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert", tmp_path / "key")
    count: list[int] = []

    class Counting(ThreadingHTTPServer):
        def get_request(self) -> Any:
            count.append(1)
            connection, address = super().get_request()
            return context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False), address

        def handle_error(self, *_: object) -> None:
            pass

    listening = Counting(("127.0.0.1", 0), Handler)
    threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        kubeconfig(config, f"https://127.0.0.1:{listening.server_port}", {"token": TOKEN})
        with pytest.raises(Unavailable, match="certificate"):
            connect(patience=5).get("ConfigMap", "a")
        assert len(count) == 1
    finally:
        listening.shutdown()
        listening.server_close()


def test_the_contexts_namespace_unless_told_otherwise(config: Path) -> None:
    assert connect().namespace == "team"
    assert connect("bare").namespace == "default"
    assert connect("bare", "mine").namespace == "mine"
    with pytest.raises(Usage, match="kubeconfig"):
        connect("nowhere")


def test_a_credential_plugin_that_is_not_there(server: Server, config: Path) -> None:
    kubeconfig(
        config, server.address, {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "no-such-plugin", "interactiveMode": "Never"}}
    )
    server.answers = [status(401, "Unauthorized")]
    with pytest.raises(NoPermission, match="credentials"):
        connect().get("ConfigMap", "a")
    assert "authorization" not in server.asked[0][2]


def test_without_a_kubeconfig(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(NoInput, match="no kubeconfig"):
        connect()


@pytest.mark.parametrize("name", ["a/../b", "Team", "-n", "x" * 64])
def test_what_is_no_namespace(config: Path, name: str) -> None:
    with pytest.raises(Usage, match="is no namespace"):
        connect(namespace=name)


def test_a_cluster_without_a_server(config: Path) -> None:
    kubeconfig(config, "", {})
    with pytest.raises(Usage, match="has no server") as raised:
        connect().get("Pod", "x")
    assert "set-cluster" in raised.value.remedy


@pytest.mark.parametrize("text", [f"token: {TOKEN}\n  : [", TOKEN, f"[{TOKEN}]", "", f"users: [{{name: me, user: {{token: {TOKEN}}}}}]"])
def test_a_kubeconfig_that_is_none(config: Path, text: str) -> None:
    config.write_text(text)
    with pytest.raises(Usage) as raised:
        connect()
    assert TOKEN not in str(raised.value.record())
