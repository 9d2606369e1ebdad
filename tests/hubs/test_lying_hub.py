"""Hubs that lie, stall, break and lead astray, by both faces: the right class, within bounds, nothing outside, nothing kept, no token let out."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

import modelyard
from modelyard import refs
from modelyard.errors import Corrupt, Failure, NoInput, NoPermission, Refused, Unavailable, Usage
from modelyard.hubs import limits, open_hub, transport
from modelyard.yard import Artifact, Yard
from modelyard.yard.manifest import MAX_FILES
from tests.hubs.lying import COMMIT, Handler, Listed, LyingHub, endless, free_port, sha256

TOKEN = "tok-en/with+signs=1234567890"
CONTENT = {"config.json": b"{}", "model.safetensors": bytes(range(256)) * 12_000}
MODEL = CONTENT["model.safetensors"]
HASH = sha256(MODEL)
LIMITS = limits.Limits(
    connect=2.0, silence=0.6, request=2.0, call=4.0, attempts=3, pause=0.01, wait=1.0, slow=(1024, 1.0), requests=40, answer=24 << 20
)

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(params=["modelscope", "hf"])
def scheme(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[LyingHub]:
    for variable in ("MODELSCOPE_API_TOKEN", "HF_TOKEN"):
        monkeypatch.setenv(variable, TOKEN)
    monkeypatch.setattr(transport, "LIMITS", LIMITS)
    with LyingHub(dict(CONTENT)) as hub:
        yield hub


class Place:
    """A folder with a yard in it, fetched into by the library call."""

    def __init__(self, root: Path, scheme: str) -> None:
        self.root = root
        self.ref = f"{scheme}://owner/model"
        (root / "bystander").write_text("untouched")

    def fetch(self, hub: LyingHub, ref: str = "", **options: Any) -> Artifact:
        return modelyard.fetch(ref or self.ref, yard=self.root / "yard", hubs=hub.hubs, **options)

    def fails(self, hub: LyingHub, *kinds: type[Failure], match: str = "", ref: str = "") -> Failure:
        """The fetch ends in one of these classes, and leaves nothing behind that anybody could take for a result."""
        with pytest.raises(kinds, match=match or None) as caught:
            self.fetch(hub, ref)
        said = str(caught.value) + caught.value.remedy + json.dumps(caught.value.record())
        chain: BaseException | None = caught.value
        while chain is not None:
            said += "".join(map(str, chain.args))
            chain = chain.__cause__
        for form in (TOKEN, quote(TOKEN, safe=""), base64.b64encode(TOKEN.encode()).decode().rstrip("=")):
            assert form not in said
        self.check_clean()
        return caught.value

    def check_clean(self) -> None:
        assert sorted(os.listdir(self.root)) == ["bystander", "yard"]
        assert (self.root / "bystander").read_text() == "untouched"
        for folder in ("artifacts", "actions", "staging"):
            assert os.listdir(self.root / "yard" / folder) == []

    def check_whole(self, artifact: Artifact, content: dict[str, bytes] = CONTENT) -> None:
        assert {entry.path: (artifact.path / entry.path).read_bytes() for entry in artifact.files} == content
        assert Yard.open(self.root / "yard").artifacts.verify(artifact.digest) == []


@pytest.fixture
def place(tmp_path: Path, scheme: str) -> Place:
    return Place(tmp_path, scheme)


def only(what: str, act: Callable[[Handler], object], times: int = 10**9) -> Callable[[Handler, str], bool]:
    """A lie at one kind of request, so many times."""
    left = [times]

    def lie(handler: Handler, asked: str) -> bool:
        if asked != what or left[0] <= 0:
            return False
        left[0] -= 1
        act(handler)
        return True

    return lie


def test_the_truth_is_fetched(place: Place, hub: LyingHub) -> None:
    """Without a lie; also, the token reaches the hub itself."""
    artifact = place.fetch(hub)
    place.check_whole(artifact)
    assert hub.tokens()
    asked = len(hub.asked)
    assert place.fetch(hub).digest == artifact.digest
    assert len([path for path, _ in hub.asked[asked:] if "resolve" in path or "FilePath" in path]) == 0


# --- what is listed


@pytest.mark.parametrize(
    "path",
    ["../evil.json", "sub/../../evil.json", "/tmp/evil.json", "a\0b.json", "a\\b.json", "CONFIG.json", "config.json/x", "", "n\nl.json", "./x.json"],
)
def test_names_that_cannot_be(place: Place, hub: LyingHub, path: str) -> None:
    hub.files[path] = b"evil"
    failure = place.fails(hub, Refused)
    assert "allowed" in failure.what or "clash" in failure.what
    assert not Path("/tmp/evil.json").exists()


@pytest.mark.parametrize("name", [5, None, ["x"], {"a": 1}])
def test_names_that_are_none(place: Place, hub: LyingHub, name: Any) -> None:
    hub.listed = [Listed("model.safetensors", len(MODEL), HASH), Listed(name, 4, sha256(b"evil"))]
    place.fails(hub, Refused, Corrupt)


@pytest.mark.parametrize("size", [-1, "12", None, 1.5, True, 2**60, [3]])
def test_sizes_that_cannot_be(place: Place, hub: LyingHub, size: Any) -> None:
    hub.listed = [Listed("model.safetensors", size, HASH)]
    place.fails(hub, Refused, Corrupt)


@pytest.mark.parametrize("digest", ["0" * 63, "z" * 64, "../../../../etc/passwd", "0" * 4096])
def test_hashes_that_are_none(place: Place, hub: LyingHub, digest: str) -> None:
    hub.listed = [Listed("model.safetensors", len(MODEL), digest)]
    place.fails(hub, Refused)


def test_nothing_is_listed(place: Place, hub: LyingHub) -> None:
    hub.listed = []
    place.fails(hub, NoInput, match="no files")


def test_too_many_files(place: Place, hub: LyingHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "LIMITS", limits.Limits())
    hub.listed = [Listed(f"{number}.json", 1, HASH) for number in range(MAX_FILES + 1)]
    place.fails(hub, Refused)


@pytest.mark.parametrize(
    "answer", [[], {}, "text", 5, None, [1], [None], {"Data": 5}, {"Data": {"Files": 7}}, {"Data": {"Files": ["x"]}}, [[]], {"Data": [[]]}]
)
def test_an_answer_of_another_shape(place: Place, hub: LyingHub, answer: Any) -> None:
    hub.lie = only("list", lambda handler: handler.json(answer))
    place.fails(hub, Refused, Corrupt, NoInput)


@pytest.mark.parametrize(
    "body", [b"<!doctype html><title>Log in</title>", b"", b"{", b"[" * 200_000, b"\xff\xfe\0", b'{"sha": "../../x", "id": "owner/model"}']
)
def test_what_is_not_json(place: Place, hub: LyingHub, body: bytes, scheme: str) -> None:
    hub.lie = only("list", lambda handler: handler.text(body, Content_Type="text/html"))
    failure = place.fails(hub, Corrupt, Refused, NoInput)
    if body.startswith(b"<"):
        assert isinstance(failure, Corrupt)
        assert "a web page" in failure.why
        assert "Log in" not in str(failure)


def test_an_answer_without_an_end(place: Place, hub: LyingHub) -> None:
    hub.lie = only("list", lambda handler: handler.drip(endless(b"[" + b" " * (1 << 20)), 0))
    place.fails(hub, Refused, match="too large")


def test_a_compressed_answer(place: Place, hub: LyingHub) -> None:
    hub.lie = only("list", lambda handler: handler.text(b"\x1f\x8b" + b"\0" * 100, Content_Encoding="gzip"))
    place.fails(hub, Corrupt, match="compressed")


def test_pages_without_an_end(place: Place, hub: LyingHub, scheme: str) -> None:
    number = [0]

    def page(handler: Handler) -> None:
        number[0] += 1
        entries = [Listed(f"{number[0]}-{index}.json", 1, HASH) for index in range(200)]
        if scheme == "modelscope":
            handler.json({"Data": {"Files": [{"Path": one.path, "Size": 1, "Sha256": HASH, "Type": "blob"} for one in entries]}})
        elif "tree" not in handler.path:
            handler.json({"id": "owner/model", "sha": COMMIT})
        else:
            handler.hub_of.listed = entries
            handler.json(handler.huggingface(), Link=f'<{hub.address}{handler.path}>; rel="next"')

    hub.lie = only("list", page)
    place.fails(hub, Refused, match="no end", ref=place.ref.replace("owner", "datasets/owner"))
    assert number[0] <= LIMITS.requests + 2


@pytest.mark.parametrize("scheme", ["hf"])
def test_a_next_page_elsewhere(place: Place, hub: LyingHub) -> None:
    with LyingHub({}) as elsewhere:
        link = f'<{elsewhere.address}/api/models/owner/model/tree/{COMMIT}?page=2>; rel="next"'

        def page(handler: Handler) -> None:
            if "tree" in handler.path:
                handler.json(handler.huggingface(), Link=link)
            else:
                handler.json({"id": "owner/model", "sha": COMMIT})

        hub.lie = only("list", page)
        place.fails(hub, Refused, match="not its own")
        assert elsewhere.asked == []


# --- the bytes


@pytest.mark.parametrize("more", [-1, 1])
def test_a_wrong_size(place: Place, hub: LyingHub, more: int) -> None:
    hub.listed = [Listed("model.safetensors", len(MODEL) + more, HASH)]
    place.fails(hub, Corrupt, match="size")


def test_a_wrong_hash(place: Place, hub: LyingHub) -> None:
    hub.listed = [Listed("model.safetensors", len(MODEL), sha256(b"something else"))]
    place.fails(hub, Corrupt, match="sha256")


@pytest.mark.parametrize("changed", [b"\1" + MODEL[1:], MODEL + b"\0", MODEL[:-1], b""])
def test_a_file_that_changed_after_it_was_listed(place: Place, hub: LyingHub, changed: bytes) -> None:
    hub.lie = only("file", lambda handler: handler.bytes(changed))
    hub.listed = [Listed("model.safetensors", len(MODEL), HASH)]
    place.fails(hub, Corrupt)


@pytest.mark.parametrize("status", [412, 422])
def test_a_file_that_the_hub_says_has_changed(place: Place, hub: LyingHub, status: int) -> None:
    hub.lie = only("file", lambda handler: handler.json({"Message": "it changed", "error": "it changed"}, status))
    place.fails(hub, Corrupt, match="not what was listed any more")


def test_a_file_that_went_after_it_was_listed(place: Place, hub: LyingHub) -> None:
    hub.listed = [Listed("model.safetensors", len(MODEL), HASH)]
    del hub.files["model.safetensors"]
    place.fails(hub, NoInput)


def test_a_body_without_an_end(place: Place, hub: LyingHub) -> None:
    hub.lie = only("file", lambda handler: handler.drip(endless(b"\0" * 65536), 0))
    place.fails(hub, Corrupt, match="size")


def test_a_web_page_for_a_file(place: Place, hub: LyingHub) -> None:
    hub.lie = only("file", lambda handler: handler.text(b"<html>Log in</html>", Content_Type="text/html"))
    place.fails(hub, Corrupt)


@pytest.mark.parametrize("ranges", [True, False])
def test_a_stream_that_is_cut_is_gone_on_with(place: Place, hub: LyingHub, ranges: bool) -> None:
    """Once by a hub that honours Range, once by one that begins anew each time; both in the end give all of it, and no byte is kept twice."""
    cuts = iter([1_000_000, 2_000_000, 2_500_000] if not ranges else [1_000_000, 1_000_000])
    hub.files = {"model.safetensors": MODEL}
    hub.lie = only("file", lambda handler: handler.bytes(MODEL, upto=next(cuts, None), ranges=ranges))
    place.check_whole(place.fetch(hub), hub.files)
    if ranges:
        assert hub.sent < len(MODEL) + 10_000


def test_a_stream_that_is_cut_at_once_again_and_again(place: Place, hub: LyingHub) -> None:
    hub.files = {"model.safetensors": MODEL}
    hub.lie = only("file", lambda handler: handler.bytes(MODEL, upto=0))
    place.fails(hub, Unavailable, match="cut|broke")
    assert len(hub.asked) < 20


@pytest.mark.parametrize("content_range", [f"bytes 0-{len(MODEL) - 1}/{len(MODEL)}", "bytes 5-9/10", "rows 1-2", ""])
def test_another_part_than_was_asked_for(place: Place, hub: LyingHub, content_range: str) -> None:
    def answer(handler: Handler) -> None:
        if "Range" in handler.headers:
            handler.text(MODEL[1_000_000:], 206, Content_Range=content_range)
        else:
            handler.bytes(MODEL, upto=1_000_000)

    hub.files = {"model.safetensors": MODEL}
    hub.lie = only("file", answer)
    place.fails(hub, Corrupt)


def test_an_attempt_goes_on_where_the_one_before_was_given_up(place: Place, hub: LyingHub) -> None:
    hub.files = {"model.safetensors": MODEL}
    first = iter([2_000_000])
    hub.lie = only("file", lambda handler: handler.bytes(MODEL, upto=next(first, 0)))
    place.fails(hub, Unavailable)
    hub.lie, hub.sent = only("nothing", lambda handler: None), 0
    place.check_whole(place.fetch(hub), hub.files)
    assert hub.sent < len(MODEL) - 1_900_000


# --- stalling


@pytest.mark.parametrize("what", ["list", "file"])
@pytest.mark.parametrize("how", ["silent", "drip", "drip in the head", "hang up"])
def test_a_hub_that_stalls(place: Place, hub: LyingHub, what: str, how: str) -> None:
    acts: dict[str, Callable[[Handler], object]] = {
        "silent": lambda handler: handler.silence(),
        "drip": lambda handler: handler.drip(endless(b"x"), 0.05),
        "drip in the head": lambda handler: handler.drip_head(0.05),
        "hang up": lambda handler: handler.hang_up(),
    }
    hub.files = {"model.safetensors": MODEL}
    hub.lie = only(what, acts[how])
    place.fails(hub, Unavailable)
    assert len(hub.asked) < 30


@pytest.mark.parametrize("what", ["list", "file"])
@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_may_pass_is_tried_again(place: Place, hub: LyingHub, what: str, status: int) -> None:
    hub.lie = only(what, lambda handler: handler.json({"error": "later"}, status, Retry_After="0"), times=2)
    place.check_whole(place.fetch(hub))
    hub.lie = only(what, lambda handler: handler.json({"error": "later"}, status))
    hub.files["more.json"] = b"[]"
    asked = len(hub.asked)
    with pytest.raises(Unavailable, match=str(status)):
        place.fetch(hub, fresh=True)
    assert len(hub.asked) - asked < 8


@pytest.mark.parametrize("after", ["3600", "Fri, 31 Dec 2100 23:59:59 GMT", "-5", "soon", "9" * 400])
def test_a_hub_that_asks_to_wait_for_ever_is_not_waited_for(place: Place, hub: LyingHub, after: str) -> None:
    hub.lie = only("list", lambda handler: handler.json({}, 429, Retry_After=after))
    place.fails(hub, Unavailable, match="429")
    assert len(hub.asked) == (1 if after in ("3600", "Fri, 31 Dec 2100 23:59:59 GMT") else LIMITS.attempts)


def test_nobody_listens(place: Place, hub: LyingHub) -> None:
    port = free_port()
    with pytest.raises(Unavailable, match="cannot be reached"):
        modelyard.fetch(place.ref, yard=place.root / "yard", hubs=dict.fromkeys(hub.hubs, f"http://127.0.0.1:{port}"))
    place.check_clean()


# --- leading astray, and letting tokens out


@pytest.mark.parametrize("what", ["list", "file"])
@pytest.mark.parametrize(("status", "name"), [(301, "127.0.0.1"), (302, "localhost"), (303, "127.0.0.1"), (307, "localhost"), (308, "127.0.0.1")])
def test_a_token_does_not_follow_a_redirect(place: Place, hub: LyingHub, what: str, status: int, name: str) -> None:
    """Another port is another origin, and so is another name of the same machine: the bytes are taken from there, the token stays here."""
    with LyingHub(dict(CONTENT)) as elsewhere:

        def lead(handler: Handler) -> None:
            location = f"http://{name}:{elsewhere.server.server_port}{handler.path}"
            handler.text(b"", status, Location=location)

        hub.lie = only(what, lead)
        place.check_whole(place.fetch(hub))
        assert elsewhere.asked
        assert elsewhere.tokens() == []
        assert TOKEN not in json.dumps(elsewhere.asked)


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
def test_a_token_does_not_go_where_large_files_are_sent(place: Place, hub: LyingHub, tmp_path: Path, scheme: str, name: str) -> None:
    """Both SDKs would send it, the one as a cookie too; and a transfer that fails is begun anew."""
    weights = tmp_path / "weights"
    weights.write_bytes(MODEL)
    with LyingHub({}) as elsewhere:
        elsewhere.lie = only("sent", lambda handler: handler.json({}, 503), times=1)
        hub.large = f"http://{name}:{elsewhere.server.server_port}"
        ref = refs.parse(place.ref)
        assert isinstance(ref, refs.HubRef)
        made = open_hub(ref.scheme, hub.hubs).upload(ref, {"model.safetensors": weights}, message="new")
        assert made == COMMIT
        assert [path for path, _ in elsewhere.asked] == [f"/blob/{HASH}"] * 2
        for _, headers in elsewhere.asked:
            assert {name.lower(): value for name, value in headers.items()}["content-length"] == str(len(MODEL))
        assert TOKEN not in json.dumps(elsewhere.asked)
        assert hub.tokens()


@pytest.mark.parametrize("body", [bytes(48 << 20), [bytes(1 << 20)] * 48], ids=["whole", "in pieces"])
def test_a_hub_may_take_longer_than_a_connect(hub: LyingHub, monkeypatch: pytest.MonkeyPatch, body: bytes | list[bytes]) -> None:
    monkeypatch.setattr(transport, "LIMITS", replace(LIMITS, connect=0.2))
    hub.pause = 0.5 if isinstance(body, list) else 0.02
    http = transport.Http("hf", hub.address, TOKEN)
    with http.call(metadata=False):
        assert http.answer("PUT", f"{hub.address}/blob/x", {"Content-Length": str(48 << 20)}, body).status == 200
    assert [path for path, _ in hub.asked] == ["/blob/x"]


@pytest.mark.parametrize("act", [lambda handler: handler.drip_head(0.05), lambda handler: handler.drip(endless(b"x"), 0.05)], ids=["head", "body"])
def test_an_answer_to_an_upload_that_drips(hub: LyingHub, monkeypatch: pytest.MonkeyPatch, act: Callable[[Handler], object]) -> None:
    monkeypatch.setattr(transport, "LIMITS", replace(LIMITS, sending=0.5))
    hub.lie = only("sent", act)
    http = transport.Http("hf", hub.address, TOKEN)
    with pytest.raises(Unavailable), http.call(metadata=False):
        http.answer("PUT", f"{hub.address}/blob/x", {"Content-Length": "4"}, [b"some"])


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "http://", "//", "data:text/plain,x", "http://[", "javascript:1", ""])
def test_a_redirect_to_no_address_of_the_web(place: Place, hub: LyingHub, target: str) -> None:
    hub.lie = only("file", lambda handler: handler.text(b"", 302, Location=target))
    place.fails(hub, Refused, Unavailable, Corrupt)


def test_redirects_in_a_circle(place: Place, hub: LyingHub) -> None:
    hub.lie = only("file", lambda handler: handler.text(b"", 302, Location=handler.path))
    place.fails(hub, Unavailable, match="on and on")
    assert len(hub.asked) < 20
    hub.lie = only("list", lambda handler: handler.text(b"", 302, Location=handler.path))
    place.fails(hub, Unavailable, Refused)
    assert len(hub.asked) < 80


@pytest.mark.parametrize("what", ["list", "file"])
@pytest.mark.parametrize(
    ("status", "kind"), [(400, Usage), (401, NoPermission), (403, NoPermission), (404, NoInput), (409, Usage), (418, Usage), (503, Unavailable)]
)
def test_a_hub_that_repeats_the_token_in_its_errors(place: Place, hub: LyingHub, what: str, status: int, kind: type[Failure]) -> None:
    coded = base64.b64encode(TOKEN.encode()).decode()
    said = f"no: {TOKEN} {quote(TOKEN, safe='')} {coded}"

    def answer(handler: Handler) -> None:
        handler.json({"Code": 1, "Success": False, "Message": said, "error": said}, status, X_Error_Message=said, X_Request_Id=said)

    hub.lie = only(what, answer)
    place.fails(hub, kind)


@pytest.mark.parametrize("listed", [Listed(f"../{TOKEN}", 1, HASH), Listed("a", f"{'x' * 30}{TOKEN}", HASH), Listed("a", 1, f"{'x' * 70}{TOKEN}")])
def test_a_hub_that_repeats_the_token_in_its_listing(place: Place, hub: LyingHub, listed: Listed) -> None:
    hub.listed = [listed]
    failure = place.fails(hub, Refused, Corrupt)
    assert TOKEN[:8] not in str(failure.record()), "nor a part of it"


def test_no_part_of_a_token_stays_where_a_text_is_cut(place: Place, hub: LyingHub) -> None:
    said = "x" * 190 + TOKEN
    hub.lie = only("file", lambda handler: handler.json({"Message": said, "error": said}, 400))
    assert TOKEN[:8] not in str(place.fails(hub, Usage).record())


@pytest.mark.parametrize("what", ["list", "file"])
def test_a_gated_repository_says_what_to_do(place: Place, hub: LyingHub, what: str, scheme: str) -> None:
    message = "Access to model owner/model is gated"
    hub.lie = only(what, lambda handler: handler.json({"Message": message, "error": message}, 403, X_Error_Code="GatedRepo"))
    failure = place.fails(hub, NoPermission, match="gated")
    assert ("HF_TOKEN" if scheme == "hf" else "MODELSCOPE_API_TOKEN") in failure.remedy


@pytest.mark.parametrize("token", ["line\nbreak-1234567", "blank in-it-1234567", "t\u00f6ken-1234567", "nul\x7f-1234567"])
def test_a_token_that_is_none_is_not_sent(place: Place, hub: LyingHub, monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    for variable in ("MODELSCOPE_API_TOKEN", "HF_TOKEN"):
        monkeypatch.setenv(variable, token)
    with pytest.raises(NoPermission, match="cannot be sent") as caught:
        place.fetch(hub)
    assert token not in json.dumps(caught.value.record(), ensure_ascii=False)
    assert hub.asked == []


@pytest.mark.parametrize("address", ["http://user:secret-word@127.0.0.1", "ftp://127.0.0.1", "http://", "http://127.0.0.1:99999", "http://x/?a=b"])
def test_addresses_that_are_refused(place: Place, hub: LyingHub, address: str) -> None:
    with pytest.raises(Usage) as caught:
        modelyard.fetch(place.ref, yard=place.root / "yard", hubs=dict.fromkeys(hub.hubs, address))
    assert "secret-word" not in json.dumps(caught.value.record())


def test_a_stored_login_is_for_the_public_address_alone(place: Place, hub: LyingHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in ("MODELSCOPE_API_TOKEN", "HF_TOKEN"):
        monkeypatch.delenv(variable)
    import huggingface_hub
    from modelscope_hub.config import HubConfig

    monkeypatch.setattr(huggingface_hub, "get_token", lambda: TOKEN)
    monkeypatch.setattr(HubConfig, "load_token", lambda _: TOKEN)
    place.check_whole(place.fetch(hub))
    assert hub.asked
    assert TOKEN not in json.dumps(hub.asked)


# --- by the command line


def command(place: Place, hub: LyingHub, *arguments: str, **variables: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "MODELYARD_HUBS_MODELSCOPE": hub.address, "MODELYARD_HUBS_HUGGINGFACE": hub.address, "HOME": str(place.root)}
    line = [sys.executable, "-m", "modelyard", *arguments, "--yard", str(place.root / "yard")]
    return subprocess.Popen(line, env={**environment, **variables}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def grep(root: Path, forms: tuple[str, ...]) -> list[str]:
    """Files below a folder in whose content or name there is one of the forms."""
    found = []
    for path in root.rglob("*"):
        text = path.name + (path.read_bytes().decode("utf-8", "replace") if path.is_file() else "")
        found += [str(path)] if any(form in text for form in forms) else []
    return found


@pytest.mark.parametrize("ends", ["well", "badly"])
def test_a_token_is_nowhere(place: Place, hub: LyingHub, ends: str) -> None:
    """By the command line, and also where a hub repeats it in its error: not in the yard, not in what is said, not in any command line."""
    forms = (TOKEN, quote(TOKEN, safe=""), base64.b64encode(TOKEN.encode()).decode().rstrip("="))
    lines: set[str] = set()

    def look(handler: Handler) -> bool:
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                lines.add(entry.read_bytes().decode("utf-8", "replace"))
            except OSError:
                continue
        if ends == "badly":
            handler.json({"Message": " ".join(forms), "error": " ".join(forms)}, 403)
        return ends == "badly"

    hub.lie = lambda handler, what: look(handler) if what == "file" else False
    process = command(place, hub, "fetch", "--model", place.ref)
    out, error = process.communicate(timeout=50)
    assert process.returncode == (77 if ends == "badly" else 0), error
    assert hub.tokens()
    assert any("modelyard_jobs" in line for line in lines)
    for form in forms:
        assert form not in out + error + "".join(lines)
    assert grep(place.root, forms) == []
    if ends == "badly":
        assert "***" in (error + out)


def test_the_command_says_what_a_bad_listing_is(place: Place, hub: LyingHub) -> None:
    hub.files["../evil.json"] = b"evil"
    process = command(place, hub, "fetch", "--model", place.ref)
    out, error = process.communicate(timeout=50)
    assert process.returncode == 81, error
    assert "../evil.json" in out + error
    assert TOKEN not in out + error
    assert os.listdir(place.root / "yard/artifacts") == []
