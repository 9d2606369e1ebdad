"""The contract with the real hubs: what modelscope.cn and huggingface.co answer is what our clients take it for.

Opt-in, because it needs the internet, and read-only, because it is somebody else's: `MODELYARD_REAL_HUBS=1 pytest tests/contract`. No tier runs it,
and where it has not been run nothing is claimed of the real hubs; the other tiers run the same clients against servers of our own. It downloads
some kilobytes of small public repositories, without a token unless one is set, and asks for nothing that a person could not see in a browser.
The endpoints are those of `MODELSCOPE_ENDPOINT` and `HF_ENDPOINT`, so that a mirror can be put to the same questions.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace

import pytest

from modelyard import config
from modelyard.errors import Failure, NoInput, NoPermission
from modelyard.hubs import Hub, HubFile, Listing, Query, open_hub
from modelyard.hubs.selection import select
from modelyard.refs import HubRef, parse

ASKED_FOR = os.environ.get("MODELYARD_REAL_HUBS") == "1"

pytestmark = [
    pytest.mark.skipif(not ASKED_FOR, reason="NOT RUN: the real hubs are asked only with MODELYARD_REAL_HUBS=1 and a network"),
    pytest.mark.timeout(300),
]

SMALL = 1 << 20
"""Bytes of the largest file that is read."""


@dataclass(frozen=True)
class Public:
    """A hub, and what is known to be on it. absent: nobody's repository."""

    hub: Hub
    model: HubRef
    dataset: HubRef
    absent: HubRef
    words: str


PLACES = {
    "modelscope": ("modelscope://AI-ModelScope/distilbert-base-uncased", "modelscope://datasets/modelscope/clue"),
    "hf": ("hf://hf-internal-testing/tiny-random-bert", "hf://datasets/stanfordnlp/imdb"),
}


@pytest.fixture(scope="module", params=PLACES)
def public(request: pytest.FixtureRequest) -> Public:
    scheme = request.param
    model, dataset = (_ref(text) for text in PLACES[scheme])
    absent = replace(model, owner="modelyard-nobody", name="no-such-repository-0123456789")
    return Public(open_hub(scheme, config.load().hubs), model, dataset, absent, "bert")


def _ref(text: str) -> HubRef:
    ref = parse(text)
    assert isinstance(ref, HubRef)
    return ref


def _bytes(public: Public, listing: Listing, file: HubFile, offset: int = 0) -> bytes:
    return b"".join(public.hub.read(listing, file, offset))


def _small(listing: Listing) -> HubFile:
    """A small file, one with a hash where there is one."""
    files = [file for file in listing.files if 16 <= file.size <= SMALL]
    assert files, f"{listing.ref} has no small file any more: name another repository"
    return min(files, key=lambda file: (file.sha256 is None, file.size))


def test_a_model_is_listed_with_names_sizes_and_hashes(public: Public) -> None:
    listing = public.hub.resolve(public.model)
    assert (listing.ref, listing.kind) == (public.model, "model")
    assert listing.size > 0
    assert "config.json" in {file.path for file in listing.files}
    weights = [file for file in listing.files if file.path.endswith((".safetensors", ".bin"))]
    assert weights
    assert all(file.sha256 for file in weights), "large files have a sha256: it is what a download is compared with"
    assert select(listing, trust=("pickle",)).files


def test_a_branch_resolves_to_a_commit_and_the_commit_to_the_same_files(public: Public) -> None:
    listing = public.hub.resolve(public.model)
    pinned = replace(public.model, revision=listing.revision)
    if not pinned.is_commit:
        pytest.skip(f"this hub names no commit of a repository: its listing's revision is {listing.revision!r}")
    assert public.hub.resolve(pinned).digest == listing.digest


def test_a_file_is_what_its_hash_says_from_any_offset(public: Public) -> None:
    listing = public.hub.resolve(public.model)
    file = _small(listing)
    whole = _bytes(public, listing, file)
    assert len(whole) == file.size
    if file.sha256:
        assert hashlib.sha256(whole).hexdigest() == file.sha256
    half = file.size // 2
    assert _bytes(public, listing, file, half) == whole[half:]
    assert _bytes(public, listing, file, file.size - 1) == whole[-1:]


def test_a_data_set_is_listed_and_read(public: Public) -> None:
    listing = public.hub.resolve(public.dataset)
    assert listing.kind == "dataset"
    file = _small(listing)
    content = _bytes(public, listing, file)
    assert len(content) == file.size
    assert file.sha256 in (None, hashlib.sha256(content).hexdigest())


def test_search_finds_what_is_popular_and_keeps_to_its_limit(public: Public) -> None:
    found = public.hub.search(Query(public.words, limit=5))
    assert 1 <= len(found) <= 5
    assert len({str(item.ref) for item in found}) == len(found)
    assert all(item.ref.scheme == public.model.scheme and item.ref.kind == "model" for item in found)
    counts = [item.downloads for item in found if item.downloads is not None]
    assert counts == sorted(counts, reverse=True)
    owned = public.hub.search(Query(owner=public.model.owner, limit=3))
    assert {item.ref.owner for item in owned} == {public.model.owner}
    assert public.hub.search(Query("no-such-words-0123456789-modelyard")) == []


def test_data_sets_are_found_too(public: Public) -> None:
    found = public.hub.search(Query(public.dataset.name.split("-")[0], kind="dataset", limit=5))
    assert found
    assert {item.ref.kind for item in found} == {"dataset"}


def test_what_is_not_there_is_not_found(public: Public) -> None:
    # a hub may hide from strangers whether a private repository exists
    with pytest.raises((NoInput, NoPermission)) as failed:
        public.hub.resolve(public.absent)
    assert isinstance(failed.value, Failure)
    assert failed.value.remedy
    with pytest.raises(NoInput):
        public.hub.resolve(replace(public.model, revision="no-such-branch"))


def test_who_we_are(public: Public) -> None:
    access = public.hub.access()
    assert access.user is None or access.user.strip()
