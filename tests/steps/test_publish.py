"""publish: what is sent, what is never sent, and what is looked at before and after."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace

import pytest
import yaml
from pydantic import ValidationError

from modelyard import hubs, refs
from modelyard.errors import Corrupt, NoInput, NoPermission, Refused, Unavailable, Usage
from modelyard.steps import Gate, Publish
from modelyard.yard.runs import StepState, StepStatus
from tests.steps.fake import artifact
from tests.steps.memory import MemoryHub
from tests.steps.released import COMMIT, RUN, WEIGHTS, World

TO = "modelscope://me/reviews"
SENT = {"README.md", "configuration.json", *WEIGHTS}


@pytest.fixture
def world(tmp_path):
    return World.make(tmp_path)


@pytest.fixture
def hub(monkeypatch):
    hub = MemoryHub()
    monkeypatch.setattr(hubs, "open_hub", lambda scheme, places: hub)
    return hub


@pytest.fixture(params=["memory", "folder"])
def either(request, world, monkeypatch, tmp_path):
    """The hub in memory, or a folder: what holds for one holds for the other."""
    if request.param == "memory":
        return request.getfixturevalue("hub")
    (tmp_path / "hub").mkdir()
    world.hub = str(tmp_path / "hub")
    return hubs.open_hub("modelscope", {"modelscope": world.hub})


def held(hub, revision=None):
    """Path -> content, as the hub gives it."""
    listing = hub.resolve(replace(refs.parse(TO), revision=revision))
    return {file.path: b"".join(hub.read(listing, file)) for file in listing.files}


def gate(floor=0.75, **settings):
    return Gate(metrics="score", at_least={"accuracy": floor}, **settings)


def tree(hub, revision="main"):
    return hub.repositories["me/reviews"][revision]


def test_a_model_its_card_and_configuration_are_published_and_tagged(world, either):
    result = world.publish(world.tuned, world.measure(world.tuned), gate=gate())
    there = held(either)
    assert set(there) == SENT
    assert there["model.safetensors"] == WEIGHTS["model.safetensors"]
    assert json.loads(there["configuration.json"]) == {"framework": "pytorch", "task": "text-classification"}
    assert result["tag"].startswith("v-")
    assert held(either, result["tag"]) == there
    assert {file["path"]: file["sha256"] for file in result["files"]} == {
        path: hashlib.sha256(content).hexdigest() for path, content in there.items()
    }
    told = {name: result[name] for name in ("to", "unchanged", "visibility", "licence")}
    assert told == {"to": TO, "unchanged": False, "visibility": "private", "licence": "apache-2.0"}
    assert result["gate"]["passed"] is True
    assert len(result["revision"]) == 40


def test_it_is_private_unless_told_otherwise_and_carries_the_licence(world, hub):
    result = world.publish(world.tuned)
    assert (hub.private, hub.licences) == ({"me/reviews": True}, {"me/reviews": "apache-2.0"})
    assert hub.writes == [f"upload {TO}", f"tag {result['tag']}"]
    world.publish(world.tuned, to="modelscope://me/public", visibility="public")
    assert hub.private["me/public"] is False


def test_an_export_goes_with_the_weights_that_it_was_made_from(world, either):
    world.publish(world.onnx, world.measure(world.tuned), gate=gate())
    there = held(either)
    assert set(there) == SENT | {"onnx/model.onnx", "onnx/export.json"}
    assert there["config.json"] == WEIGHTS["config.json"].encode()
    card = there["README.md"].decode()
    assert world.onnx.digest in card
    assert world.tuned.digest in card
    assert "differ by 3.1e-07 at most" in card


def test_published_again_it_is_found_unchanged(world, either):
    metrics = world.measure(world.tuned)
    first = world.publish(world.onnx, metrics, gate=gate())
    assert world.publish(world.onnx, metrics, gate=gate()) == {**first, "unchanged": True, "visibility": "as it was"}


@pytest.mark.parametrize("hashes", [True, False])
def test_the_second_time_nothing_is_sent(world, hub, hashes):
    hub.hashes = hashes
    metrics = world.measure(world.tuned)
    first = world.publish(world.onnx, metrics, gate=gate())
    hub.writes.clear()
    hub.token = None  # nobody needs one to see that nothing is to be done
    assert world.publish(world.onnx, metrics, gate=gate()) == {**first, "unchanged": True, "visibility": "as it was"}
    assert hub.writes == []


def test_a_missing_tag_is_made_without_sending_anything(world, hub):
    first = world.publish(world.tuned)
    del hub.repositories["me/reviews"][first["tag"]]  # killed between the two
    hub.writes.clear()
    assert world.publish(world.tuned)["unchanged"] is False
    assert hub.writes == [f"tag {first['tag']}"]


def test_another_model_replaces_what_was_there_and_old_tags_stay(world, either):
    first = world.publish(world.base)
    second = world.publish(world.tuned, visibility="public")
    assert held(either)["model.safetensors"] == WEIGHTS["model.safetensors"]
    assert held(either, first["tag"])["model.safetensors"] == b"base"
    assert (second["tag"] != first["tag"], second["visibility"]) == (True, "as it was")
    assert world.publish(world.tuned, to=f"{TO}@dev", visibility="public")["visibility"] == "as it was"


def test_below_the_gate_the_hub_hears_nothing(world, monkeypatch):
    monkeypatch.setattr(hubs, "open_hub", lambda *_: pytest.fail("the hub was opened"))
    with pytest.raises(Refused, match=r"accuracy 0\.82 .*at least 0\.9"):
        world.publish(world.tuned, world.measure(world.tuned), gate=gate(0.9))
    gated = world.result()["gate"]
    assert (gated["passed"], gated["lines"][0]["value"], gated["lines"][0]["at_least"]) == (False, 0.82, 0.9)
    with pytest.raises(Refused, match="of another model"):
        world.publish(world.tuned, world.measure(world.base), gate=gate())
    with pytest.raises(NoInput, match="f1_makro"):
        world.publish(world.tuned, world.measure(world.tuned), gate=Gate(metrics="score", at_least={"f1_makro": 0.5}))


@pytest.mark.parametrize("token", [None, "read"])
def test_without_a_token_that_writes_nothing_is_asked_to_be_written(world, hub, token):
    hub.token = token
    with pytest.raises(NoPermission) as denied:
        world.publish(world.tuned)
    assert "MODELSCOPE_API_TOKEN" in denied.value.remedy
    assert hub.writes == []
    with pytest.raises(NoPermission) as denied:
        world.publish(world.tuned, to="hf://me/reviews")
    assert "HF_TOKEN" in denied.value.remedy


@pytest.mark.parametrize("hashes", [True, False])
@pytest.mark.parametrize("path", ["model.safetensors", "config.json", "README.md"])
def test_a_hub_that_changes_a_byte_is_noticed_before_the_tag(world, hub, hashes, path):
    hub.changed, hub.hashes = path, hashes
    with pytest.raises(Corrupt, match=path):
        world.publish(world.tuned)
    assert hub.writes == [f"upload {TO}"]


def test_a_file_that_the_hub_does_not_let_go_is_noticed(world, hub):
    hub.stale = {"pytorch_model.bin": b"old"}
    with pytest.raises(Corrupt, match=r"'pytorch_model\.bin' is there too"):
        world.publish(world.tuned)
    hub.stale = {".gitattributes": b"*.safetensors filter=lfs\n"}  # that one is the hub's own
    assert world.publish(world.tuned)["unchanged"] is False
    assert world.publish(world.tuned)["unchanged"] is True


def test_a_tag_that_stands_for_something_else_is_seen_before_anything_is_sent(world, either):
    world.publish(world.base, tag="v1")
    with pytest.raises(Usage, match=r"the tag 'v1' stands for something else"):
        world.publish(world.tuned, tag="v1")
    assert held(either)["model.safetensors"] == b"base"
    assert world.publish(world.tuned, tag="v2")["tag"] == "v2"


def test_pickles_code_and_unknown_files_stay_at_home(tmp_path, hub):
    extra = {"pytorch_model.bin": b"pickle", "modeling.py": b"code", "notes.xyz": b"?", "onnx/model.onnx": b"old", "training_args.json": b"{}"}
    world = World.make(tmp_path, base={**WEIGHTS, **extra, "LICENSE": "MIT License\n\nCopyright", "model-00001-of-00002.safetensors": b"shard"})
    result = world.publish(world.base)
    assert set(tree(hub)) == SENT | {"LICENSE", "model-00001-of-00002.safetensors"}
    assert world.context.decisions["files left out"] == sorted(extra)
    assert result["licence"] == "mit"


def test_a_model_of_pickles_is_refused(tmp_path, hub):
    world = World.make(tmp_path, base={"config.json": WEIGHTS["config.json"], "pytorch_model.bin": b"pickle"})
    with pytest.raises(Refused, match="no safetensors"):
        world.publish(world.base)
    assert hub.writes == []


def test_a_planted_link_and_a_changed_byte_are_noticed_before_anything_is_sent(world, hub, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("{}")
    path = world.tuned.path / "tokenizer.json"
    os.chmod(path.parent, 0o777)
    path.unlink()
    path.symlink_to(secret)
    with pytest.raises(Refused, match="no regular file"):
        world.publish(world.tuned)
    path.unlink()
    with pytest.raises(Refused, match="not there any more"):
        world.publish(world.tuned)
    path.write_text("[]")
    with pytest.raises(Corrupt, match="not what its manifest says"):
        world.publish(world.tuned)
    assert hub.writes == []


def test_without_a_known_licence_it_is_private_or_not_at_all(tmp_path, hub):
    world = World.make(tmp_path, card="# a base that says nothing\n")
    with pytest.raises(Usage, match="licence") as unknown:
        world.publish(world.tuned, visibility="public")
    assert "set `licence`" in unknown.value.remedy
    assert hub.writes == []
    assert world.publish(world.tuned)["licence"] is None
    assert "licence is not known" in tree(hub)["README.md"].decode()
    assert b"license" not in tree(hub)["README.md"].split(b"---")[1]
    assert world.publish(world.tuned, visibility="public", licence="MIT")["licence"] == "mit"
    assert yaml.safe_load(tree(hub)["README.md"].split(b"---")[1])["license"] == "mit"


def test_the_weights_of_an_export_have_to_be_there(world, hub):
    world.yard.artifacts.discard(world.tuned.digest)
    world.yard.artifacts.delete(world.tuned.digest)
    with pytest.raises(NoInput):
        world.publish(world.onnx)
    assert hub.writes == []


def test_a_path_of_this_machine_is_told_by_its_name_alone(world, hub):
    world.resolve(data_ref="/home/somebody/secret-project/reviews.csv")
    world.publish(world.tuned, world.measure(world.tuned), gate=gate())
    card = tree(hub)["README.md"].decode()
    assert "`reviews.csv`" in card
    for word in ("somebody", "secret-project", str(world.folder)):
        assert word not in card


def test_a_licence_is_read_from_the_head_of_its_text_alone(tmp_path, hub):
    apache = "\n   Apache License\n   Version 2.0, January 2004\n"
    for number, (text, licence) in enumerate({apache: "apache-2.0", "Ours alone. " * 50 + apache: None}.items()):
        world = World.make(tmp_path / str(number), base={**WEIGHTS, "LICENSE": text})
        assert world.publish(world.tuned)["licence"] == licence


def test_offline_no_hub_is_asked(world, hub, monkeypatch):
    monkeypatch.setenv("MODELYARD_OFFLINE", "1")
    with pytest.raises(Unavailable):
        world.publish(world.tuned)
    assert hub.writes == []


def test_a_commit_is_no_place_to_publish_to():
    with pytest.raises(ValidationError, match="a commit does not change"):
        Publish(model="onnx", to=f"{TO}@{COMMIT}")
    assert Publish(model="onnx", to=f"{TO}@v1", tag="release/1.0").tag == "release/1.0"


@pytest.mark.parametrize("tag", ["", "../x", "a b", "v1?x=y", "/v1", "v1\n", "main", "master", COMMIT])
def test_a_tag_is_a_name_that_can_stand_in_a_request(tag):
    with pytest.raises(ValidationError, match="is no tag"):
        Publish(model="onnx", to=TO, tag=tag)


def test_of_two_models_with_one_export_the_runs_own_is_published(tmp_path, hub):
    other = {**WEIGHTS, "config.json": json.dumps({"model_type": "other"})}
    world = World.make(tmp_path)
    twin = artifact(world.yard, "model", other, "safetensors")
    world.act("export", world.onnx, {"model": twin, "parity": world.data})
    for model in (world.tuned, twin):
        (own,) = (one for one in world.yard.actions.list() if one.verb == "export" and one.inputs["model"] == model.digest)
        run = world.yard.runs.get(RUN)
        status = run.status()
        step = StepStatus(verb="export", state=StepState.DONE, key=own.key, artifact=world.onnx.digest)
        run.write_status(status.model_copy(update={"steps": {**status.steps, "onnx": step}}))
        world.publish(world.onnx)
        assert tree(hub)["config.json"] == (model.path / "config.json").read_bytes()


@pytest.mark.parametrize(
    ("architecture", "task", "theirs"),
    [
        ("BertForTokenClassification", "token-classification", "token-classification"),
        ("BertForSequenceClassification", "text-classification", "text-classification"),
        ("RTDetrForObjectDetection", "object-detection", "image-object-detection"),
        ("GPT2LMHeadModel", "text-generation", "text-generation"),
        ("BertModel", None, None),
        (None, None, None),
    ],
)
def test_a_card_says_what_the_model_is_and_no_more(tmp_path, hub, architecture, task, theirs):
    config = {"id2label": {"0": "B-PER", "1": "O"}, **({"architectures": [architecture]} if architecture else {})}
    world = World.make(tmp_path, base={**WEIGHTS, "config.json": json.dumps(config)})
    world.publish(world.base)
    there = tree(hub)
    assert (f"pipeline_tag: {task}\n".encode() in there["README.md"]) == (task is not None)
    assert (b"pipeline_tag" in there["README.md"]) == (task is not None)
    assert (b"`B-PER`" in there["README.md"]) == (task not in (None, "text-generation"))
    assert json.loads(there["configuration.json"]).get("task") == theirs


@pytest.mark.parametrize(
    ("more", "asked"),
    [
        ({"chat_template.jinja": "{{ messages }}"}, True),
        ({"tokenizer_config.json": json.dumps({"chat_template": "{{ messages }}"})}, True),
        ({"tokenizer_config.json": json.dumps({"pad_token": "x"})}, False),
        ({"tokenizer_config.json": "[1"}, False),
        ({}, False),
    ],
)
def test_a_chat_model_is_shown_as_one_wherever_its_template_stands(tmp_path, hub, more, asked):
    config = json.dumps({"architectures": ["LlamaForCausalLM"]})
    plain = {path: content for path, content in WEIGHTS.items() if not path.startswith("tokenizer_config")}
    world = World.make(tmp_path, base={**plain, "config.json": config, **more})
    world.publish(world.base)
    assert (b"apply_chat_template(chat" in tree(hub)["README.md"]) == asked


def test_publish_needs_nothing_heavy():
    import subprocess
    import sys

    code = "import sys, modelyard_jobs.publish, modelyard_jobs.promote; print({'torch', 'transformers', 'numpy', 'datasets'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


CHAMPION = "yard://models/reviews@champion"


def no_worse():
    return Gate(metrics="score", not_worse_than_champion=0.01)


def test_no_worse_than_the_champion_is_published_before_it_is_promoted_and_after(world, hub):
    world.plan()
    world.yard.refs.move(CHAMPION, world.base.digest, "before")
    metrics = world.measure(world.tuned, world.base, 0.02)
    first = world.publish(world.onnx, metrics, gate=no_worse())
    assert first["gate"]["passed"]
    assert b"`accuracy` less that of the model before it at least -0.01" in tree(hub)["README.md"]
    world.yard.refs.move(CHAMPION, world.tuned.digest, "this run")  # the weights of what is published
    assert world.publish(world.onnx, metrics, gate=no_worse())["unchanged"]


@pytest.mark.parametrize("moved", [True, False])
def test_worse_than_the_champion_or_than_one_that_has_gone_nothing_is_published(world, hub, moved):
    world.plan()
    other = artifact(world.yard, "model", {"model.safetensors": b"another"})
    world.yard.refs.move(CHAMPION, (other if moved else world.base).digest, "somebody")
    with pytest.raises(Refused, match="the champion moved meanwhile" if moved else "accuracy less the champion's"):
        world.publish(world.tuned, world.measure(world.tuned, world.base, 0.02 if moved else -0.02), gate=no_worse())
    assert hub.repositories == {}


def test_what_was_compared_with_a_model_without_a_name_is_published_by_its_numbers(world, hub):
    world.plan(against="modelscope://tiny/base")
    assert world.publish(world.tuned, world.measure(world.tuned, world.base, 0.0), gate=no_worse())["gate"]["passed"]
    with pytest.raises(Refused, match="less the champion's"):
        world.publish(world.tuned, world.measure(world.tuned, world.base, -0.5), gate=no_worse())
