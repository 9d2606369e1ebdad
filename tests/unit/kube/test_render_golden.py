"""Manifests do not change unnoticed. With MODELYARD_REGENERATE=1 these tests write them anew, to be read in the diff."""

from __future__ import annotations

import os

import pytest
import yaml

from modelyard import __version__, keys
from modelyard.cli.render import documents
from modelyard.kube import overlay
from modelyard.kube.cluster import Manifest
from tests.unit.kube import manifests

MADE = manifests.goldens()
REGENERATE = os.environ.get("MODELYARD_REGENERATE") == "1"


def golden(name: str, text: str) -> str:
    """The text that is kept under a name; `text` itself becomes that where it was asked for, and never in CI."""
    path = manifests.GOLDEN / f"{name}.yaml"
    if REGENERATE:
        assert not os.environ.get("CI"), "goldens are written by people who read them"
        path.write_text(text, encoding="utf-8")
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", MADE)
def test_manifests_are_as_they_were(name: str) -> None:
    assert documents(list(MADE[name])) + "\n" == golden(name, documents(list(MADE[name])) + "\n")


def test_every_golden_is_of_something() -> None:
    assert {path.stem for path in manifests.GOLDEN.glob("*.yaml")} == {*MADE, "overlays"}


def test_every_example_has_one() -> None:
    assert {f"example-{path.stem}" for path in manifests.EXAMPLES} <= set(MADE)
    assert manifests.EXAMPLES


def test_goldens_change_with_neither_the_code_nor_the_version() -> None:
    kept = "".join(path.read_text(encoding="utf-8") for path in manifests.GOLDEN.glob("*.yaml"))
    assert keys.code_digest()[:10] not in kept
    assert f":{__version__}-" not in kept


def test_yaml_reads_back_as_it_was() -> None:
    for made in MADE.values():
        assert list(yaml.safe_load_all(documents(list(made)))) == list(made)


def test_overlays_do_what_they_did() -> None:
    before = manifests.pod()
    made = [{"case": case, "overlay": patch, **_changes(before, overlay.merge(before, patch))} for case, patch in manifests.OVERLAYS.items()]
    assert documents(made) + "\n" == golden("overlays", documents(made) + "\n")
    assert before == manifests.pod()


def _changes(before: Manifest, after: Manifest) -> Manifest:
    """What of a pod is another than before, and what is gone."""
    changed = {f"{part}.{name}": value for part in after for name, value in after[part].items() if before[part].get(name) != value}
    return {"changed": changed, "gone": [f"{part}.{name}" for part in before for name in before[part] if name not in after[part]]}
