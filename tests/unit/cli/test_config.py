"""modelyard.toml, the environment and options: which one wins, and where it says that it comes from."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelyard import __version__, config
from modelyard.errors import Usage
from modelyard.run.settings import Settings, place_of
from modelyard.spec import Pipeline
from modelyard.steps import Fetch

from .conftest import Call


def test_defaults(folder: Path) -> None:
    found = config.load(environ={}, folder=folder)
    assert (found.values["on"].text, found.yard) == ("local", folder / ".yard")
    assert found.hubs == {"modelscope": "https://modelscope.cn", "huggingface": "https://huggingface.co"}
    assert {value.source for value in found.values.values()} == {"default"}


def test_a_hubs_default_is_the_address_of_its_own_library(folder: Path) -> None:
    environ = {"MODELSCOPE_ENDPOINT": "hub.example", "HF_ENDPOINT": "http://127.0.0.1:8080"}
    found = config.load(environ=environ, folder=folder)
    assert found.hubs == {"modelscope": "https://hub.example", "huggingface": "http://127.0.0.1:8080"}
    assert found.values["hubs.modelscope"].source == "MODELSCOPE_ENDPOINT"
    (folder / "modelyard.toml").write_text('[hubs]\nmodelscope = "hub"\n')
    found = config.load(environ=environ, folder=folder)
    assert found.hubs == {"modelscope": str(folder / "hub"), "huggingface": "http://127.0.0.1:8080"}, "what is ours beats what is theirs"


def test_each_source_beats_the_one_below(folder: Path) -> None:
    file = folder / "modelyard.toml"
    file.write_text('yard = "from-file"\n[hubs]\nmodelscope = "hub"\n')
    environ = {"MODELYARD_YARD": "from-env", "MODELYARD_HUBS_HUGGINGFACE": "https://hub.example"}
    assert config.load(environ={}, folder=folder).values["yard"] == config.Value(str(folder / "from-file"), str(file))
    assert config.load(environ=environ, folder=folder).values["yard"] == config.Value(str(folder / "from-env"), "MODELYARD_YARD")
    found = config.load({"yard": "from-option", "on": None}, environ=environ, folder=folder)
    assert found.values["yard"] == config.Value(str(folder / "from-option"), "--yard")
    assert found.hubs == {"modelscope": str(folder / "hub"), "huggingface": "https://hub.example"}


def test_the_file_is_searched_upward_and_its_folders_count_from_it(folder: Path) -> None:
    (folder / "modelyard.toml").write_text('yard = "../shared"\n')
    below = folder / "a" / "b"
    below.mkdir(parents=True)
    assert config.load(environ={}, folder=below).yard == folder.parent / "shared"
    (below / "modelyard.toml").write_text("")
    assert config.load(environ={}, folder=below).yard == below / ".yard", "the nearest file counts alone"


@pytest.mark.parametrize("address", ["https://me:planted@hub.example", "HTTPS://planted@hub.example", "https://hub.example?token=planted"])
@pytest.mark.parametrize("place", ["MODELYARD_HUBS_MODELSCOPE", "MODELSCOPE_ENDPOINT", "modelyard.toml"])
def test_an_address_with_a_secret_is_refused_and_not_repeated(
    call: Call, folder: Path, monkeypatch: pytest.MonkeyPatch, address: str, place: str
) -> None:
    if place == "modelyard.toml":
        (folder / place).write_text(f'[hubs]\nmodelscope = "{address}"\n')
    else:
        monkeypatch.setenv(place, address)
    for arguments in (["check"], ["check", "-o", "json"], ["search"]):
        done = call(*arguments)
        assert done.code == 64
        assert place in done.err
        assert "MODELSCOPE_API_TOKEN" in done.err
        assert "planted" not in done.out + done.err
    assert not (folder / ".yard").exists()


def test_an_address_with_a_secret_that_is_not_in_force_hinders_nobody(folder: Path) -> None:
    environ = {"HF_ENDPOINT": "https://me:planted@hub.example", "MODELYARD_HUBS_HUGGINGFACE": "https://hub.example"}
    assert config.load(environ=environ, folder=folder).hubs["huggingface"] == "https://hub.example"
    with pytest.raises(Usage, match="holds a name, a password"):
        Settings(folder, {"huggingface": environ["HF_ENDPOINT"]}).check(Pipeline("a", {"model": Fetch(model="hf://o/n")}))


def test_an_empty_variable_says_nothing(folder: Path) -> None:
    assert config.load(environ={"MODELYARD_YARD": ""}, folder=folder).values["yard"].source == "default"


@pytest.mark.parametrize(
    ("text", "where", "remedy"),
    [
        ('yrd = "x"', "yrd", "did you mean 'yard'?"),
        ('[hubs]\nmodelscop = "x"', "hubs.modelscop", "did you mean 'hubs.modelscope'?"),
        ("[hub]", "hub", "did you mean 'hubs'?"),
        ("yard = 3", "yard", "write it in quotes"),
        ("[yard]\npath = 'x'", "yard", "write it in quotes"),
        ('yard = ""', "yard", "write it in quotes"),
        ("yard = ", "", "correct the file"),
    ],
)
def test_a_wrong_file_is_named_with_the_key(folder: Path, text: str, where: str, remedy: str) -> None:
    (folder / "modelyard.toml").write_text(text)
    with pytest.raises(Usage) as failed:
        config.load(environ={}, folder=folder)
    assert failed.value.where == f"{folder / 'modelyard.toml'}" + (f": {where}" if where else "")
    assert failed.value.remedy == remedy


def test_places_to_run(folder: Path) -> None:
    with pytest.raises(Usage, match="no place to run") as failed:
        config.load({"on": "moon"}, environ={}, folder=folder)
    assert failed.value.where == "--on"
    with pytest.raises(Usage) as failed:
        config.load(environ={"MODELYARD_ON": "locl"}, folder=folder)
    assert (failed.value.where, failed.value.remedy) == ("MODELYARD_ON", "did you mean 'local'?")


def test_on_a_cluster_the_yard_is_a_claim(folder: Path) -> None:
    there = config.load({"on": "kubernetes"}, environ={}, folder=folder)
    assert there.remote
    assert there.values["yard"] == config.Value("modelyard", "default")
    assert config.load({"on": "kubernetes", "yard": "models"}, environ={}, folder=folder)["yard"] == "models"
    (folder / "modelyard.toml").write_text('yard = "./.yard"\n')
    with pytest.raises(Usage, match="is no claim") as failed:
        config.load({"on": "kubernetes"}, environ={}, folder=folder)
    assert failed.value.where == str(folder / "modelyard.toml")
    here = config.load(environ={"MODELYARD_NAMESPACE": "ml"}, folder=folder)
    assert (here.remote, here.yard, here["namespace"]) == (False, folder / ".yard", "ml")


def test_the_image_gets_this_version_unless_it_names_one(folder: Path) -> None:
    images = ["", "example.com:5000/team/modelyard", "example.com:5000/team/modelyard:7"]
    found = [place_of(config.load(environ={"MODELYARD_IMAGE": image}, folder=folder)).image for image in images]
    assert found == [f"modelyard:{__version__}", f"example.com:5000/team/modelyard:{__version__}", "example.com:5000/team/modelyard:7"]


@pytest.mark.parametrize("image", ["Bad Image:1", "a/UPPER", "name:1@sha256:0", "-x", "a//b:1", "name:"])
def test_what_is_no_image_is_refused_before_anything_is_submitted(folder: Path, image: str) -> None:
    with pytest.raises(Usage, match="is no image") as failed:
        place_of(config.load(environ={"MODELYARD_IMAGE": image}, folder=folder))
    assert failed.value.where == "MODELYARD_IMAGE"


@pytest.mark.parametrize("image", ["modelyard", "localhost/modelyard:0.1.0", "Registry.example.com:5000/a-b/c__d.e:v1_2.3-x", "10.0.0.1/x"])
def test_what_is_an_image(folder: Path, image: str) -> None:
    assert place_of(config.load(environ={"MODELYARD_IMAGE": image}, folder=folder)).image.startswith(image)


def test_a_drivers_memory_is_a_size(folder: Path) -> None:
    assert place_of(config.load(environ={}, folder=folder)).driver_memory == "512Mi"
    assert place_of(config.load(environ={"MODELYARD_DRIVER_MEMORY": "1Gi"}, folder=folder)).driver_memory == "1Gi"
    with pytest.raises(Usage, match="MODELYARD_DRIVER_MEMORY: 'lots' is no size"):
        place_of(config.load(environ={"MODELYARD_DRIVER_MEMORY": "lots"}, folder=folder))
