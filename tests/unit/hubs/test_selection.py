"""Which files are taken."""

from __future__ import annotations

import pytest

from modelyard import refs
from modelyard.errors import NoInput, Refused
from modelyard.hubs import HubFile, Listing
from modelyard.hubs.selection import Role, fetch_key, role_of, select

REF = refs.parse("modelscope://owner/name")


def listing(paths, kind="model"):
    return Listing(REF, kind, "main", tuple(HubFile(path, 1, None, "1") for path in paths.split()))


def taken(paths, kind="model", trust=()):
    return " ".join(file.path for file in select(listing(paths, kind), trust).files)


def test_safetensors_come_before_everything_else_and_each_other_file_has_a_reason():
    small = "LICENSE README.md config.json merges.txt spiece.model tokenizer.json"
    others = (
        "pytorch_model.bin pytorch_model.bin.index.json tf_model.h5 flax_model.msgpack rust_model.ot onnx/model.onnx onnx/model.onnx_data"
        " onnx/config.json openvino/openvino_model.xml openvino_model.bin training_args.bin modeling.py model.gguf .gitattributes weird.xyz"
        " saved_model/a.json"
    )
    selection = select(listing(f"{small} model.safetensors {others}"))
    assert sorted(file.path for file in selection.files) == sorted([*small.split(), "model.safetensors"])
    assert sorted(path for path, _ in selection.left_out) == sorted(others.split())
    assert all(reason for _, reason in selection.left_out)
    assert (selection.format, selection.trusted, selection.size) == ("safetensors", (), 7)


def test_sharded_safetensors_keep_their_index():
    paths = "model-00001-of-00002.safetensors model-00002-of-00002.safetensors model.safetensors.index.json"
    assert taken(paths) == paths


def test_pickles_are_not_taken_beside_safetensors_even_when_they_are_trusted():
    assert taken("model.safetensors pytorch_model.bin config.json", trust=["pickle"]) == "config.json model.safetensors"


PICKLES = "pytorch_model.bin model.pt model.pth model.ckpt model.pkl model.PICKLE m.joblib w.npz w.npy tf_model.h5 m.keras m.nemo w.pkl.gz"


@pytest.mark.parametrize("name", PICKLES.split())
def test_a_model_of_pickles_is_refused_unless_they_are_trusted(name):
    with pytest.raises(Refused) as caught:
        select(listing(f"config.json {name}"))
    assert name in caught.value.what
    assert "trust: [pickle]" in caught.value.remedy
    with pytest.raises(Refused):
        select(listing(f"config.json {name}"), ["code"])
    selection = select(listing(f"config.json {name} model.py"), ["pickle"])
    assert {file.path for file in selection.files} == {"config.json", name}
    assert (selection.format, selection.trusted) == ("pickle", ("pickle",))


def test_onnx_is_taken_where_there_are_no_safetensors():
    selection = select(
        listing("config.json onnx/model.onnx onnx/model.onnx.data onnx/model.onnx_data onnx/tokenizer.json onnx/evil.bin onnx/x.py pytorch_model.bin")
    )
    assert selection.format == "onnx"
    assert {path for path, _ in selection.left_out} == {"onnx/evil.bin", "onnx/x.py", "pytorch_model.bin"}


def test_code_is_taken_on_trust_only():
    assert taken("model.safetensors modeling_x.py run.sh a.so b.ipynb") == "model.safetensors"
    selection = select(listing("model.safetensors modeling_x.py"), ["code"])
    assert {file.path for file in selection.files} == {"model.safetensors", "modeling_x.py"}
    assert selection.trusted == ("code",)


def test_a_name_cannot_pretend():
    for name in ("model.safetensors.py", "model.safetensors.pkl", "model.onnx.bin", "x.json.so", "model.safetensors.exe"):
        assert role_of(name) in (Role.CODE, Role.PICKLE), name


def test_a_model_without_weights_is_no_model():
    with pytest.raises(NoInput, match="weights"):
        select(listing("config.json tokenizer.json"))
    with pytest.raises(NoInput):
        select(listing("model.gguf flax_model.msgpack"))


def test_data_sets_are_taken_without_scripts():
    data = "README.md data/train.parquet dataset_infos.json images/onnx/1.jpg test.jsonl.gz train.csv train.txt"
    selection = select(listing(f"{data} movies.py .gitattributes cache.pkl x.bin model.safetensors", "dataset"))
    assert " ".join(file.path for file in selection.files) == data
    assert dict(selection.left_out)["movies.py"].startswith("code")
    assert selection.format is None


@pytest.mark.parametrize(("paths", "word"), [("README.md movies.py", "code"), ("README.md train.pkl", "pickle"), ("a.npy", "pickle")])
def test_a_data_set_of_scripts_or_pickles_is_refused(paths, word):
    with pytest.raises(Refused) as caught:
        select(listing(paths, "dataset"))
    assert f"trust: [{word}]" in caught.value.remedy


def test_trusted_pickles_are_data():
    assert taken("README.md train.pkl", "dataset", ["pickle"]) == "README.md train.pkl"


def test_a_data_set_without_data_is_none():
    with pytest.raises(NoInput):
        select(listing("README.md LICENSE", "dataset"))


def test_the_key_is_a_function_of_the_taken_files_and_the_kind():
    base = fetch_key(select(listing("config.json model.safetensors")))
    assert fetch_key(select(listing("config.json model.safetensors pytorch_model.bin modeling.py"), ["pickle"])) == base
    assert fetch_key(select(listing("config.json model.safetensors modeling.py"), ["code"])) != base
    changed = Listing(REF, "model", "main", (HubFile("config.json", 1, None, "2"), HubFile("model.safetensors", 1, None, "1")))
    assert fetch_key(select(changed)) != base
    assert fetch_key(select(listing("train.csv", "dataset"))) != fetch_key(select(listing("train.csv model.safetensors")))
