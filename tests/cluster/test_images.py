"""The images as their users get them: run as a restricted pod runs them, and looked through for what must not be in them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import modelyard
from modelyard.steps import STEPS
from tests.cluster import images
from tests.cluster.containers import Container, container
from tests.cluster.harness.processes import run
from tests.cluster.harness.state import HarnessFailure

LIGHT_STEPS = {"fetch", "promote", "publish", "search"}
HEAVY = ["torch", "transformers", "datasets", "onnx", "onnxruntime", "numpy", "pyarrow"]
TOOLS = ["uv", "pip", "pip3", "gcc", "cc", "g++", "c++", "make", "hatchling"]
UNCHECKED_HASH = 0b01
"""The flags of byte code that is taken without a look at its source: nothing in an image changes."""
TOKEN = "images-test-token"

PIPELINE = """
name: light
steps:
  found: {search: {query: base, hub: [modelscope]}}
  base: {fetch: {model: modelscope://tiny/base}}
  named: {promote: {model: base, to: yard://models/base@champion}}
  out: {publish: {model: base, to: modelscope://me/base}}
"""
LIFE = """
set -eu
umask 077; cp -r /given/hub ~/hub; echo $MODELSCOPE_API_TOKEN > ~/token
modelyard hub serve ~/hub --port 8000 --token-file ~/token > ~/served 2> ~/requests & hub=$!
for _ in $(seq 100); do test -s ~/served && break; sleep 0.1; done
MODELYARD_HUBS_MODELSCOPE=$(head -n 1 ~/served) modelyard run /given/pipeline.yaml --on local --yard /tmp/yard -o json
kill $hub; wait $hub || true
"""

CUDA = pytest.param("cuda", marks=pytest.mark.slow)
"""Gigabytes that take minutes to build for the first time."""


@pytest.fixture(scope="module", params=["light", CUDA])
def any_image(request, tmp_path_factory):
    with _container(request.param, tmp_path_factory) as found:
        yield found


@pytest.fixture(scope="module")
def light(tmp_path_factory):
    with _container("light", tmp_path_factory) as found:
        yield found


@pytest.fixture(scope="module")
def cuda(tmp_path_factory):
    with _container("cuda", tmp_path_factory) as found:
        yield found


def _container(target, tmp_path_factory) -> contextlib.AbstractContextManager[Container]:
    return container(images.image(target), tmp_path_factory.mktemp(target))


def target_of(found):
    return found.image.rpartition("-")[2]


def test_the_entrypoint_is_the_command_line(any_image):
    version = any_image.call("--version")
    assert (version.returncode, version.stdout) == (0, f"modelyard {modelyard.__version__}\n")
    help_ = any_image.call("finetune", "--help")
    assert help_.returncode == 0
    assert "--learning-rate" in help_.stdout
    assert any_image.call("no-such-command").returncode == 64


@pytest.mark.parametrize("verb", sorted(STEPS))
def test_every_step_can_be_started(any_image, verb):
    done = any_image.run("python", "-m", "modelyard_jobs", verb, "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: modelyard_jobs")


def test_steps_and_their_packages_are_where_they_belong(any_image):
    """Every step's module imports in the big image; in the light one those of the light steps do, and there is no torch to import."""
    found = any_image.python(
        f"""
import importlib, importlib.util, json
def comes(name):
    try:
        importlib.import_module(name)
    except ImportError as error:
        return error.name
    return True
print(json.dumps({{"steps": {{verb: comes("modelyard_jobs." + verb) for verb in {sorted(STEPS)}}},
                  "heavy": [name for name in {HEAVY} if importlib.util.find_spec(name)],
                  "driver": [comes(name) for name in ("modelyard.run.pipeline", "modelyard.hubs.server.app", "kubernetes")]}}))
"""
    )
    if target_of(any_image) == "light":
        assert {verb for verb, came in found["steps"].items() if came is True} >= LIGHT_STEPS
        assert (found["heavy"], found["driver"]) == ([], [True, True, True])
    else:
        assert found["steps"] == dict.fromkeys(STEPS, True)
        assert found["heavy"] == HEAVY


@pytest.mark.slow
def test_torch_of_the_big_image_has_cuda_and_computes(cuda):
    found = cuda.python(
        """
import json, torch
print(json.dumps([torch.version.cuda, float(torch.ones(3).sum()), torch.cuda.is_available()]))
"""
    )
    assert re.fullmatch(r"\d+\.\d+", found[0])
    assert found[1] == 3.0
    assert found[2] is os.path.exists("/dev/nvidia0"), "no device was given to this container"


@pytest.mark.slow
def test_onnx_runtime_reports_to_nobody(cuda):
    """Where it may report, it starts by writing an identity of the machine below the home directory."""
    look = ["sh", "-c", "python -c 'import onnxruntime' && find ~ -type f"]
    assert cuda.run(*look, environ={"ORT_DISABLE_TELEMETRY": "0"}).stdout != ""
    told = cuda.run(*look)
    assert (told.returncode, told.stdout, told.stderr) == (0, "", "")


def test_light_steps_run_in_the_light_image(light, tmp_path):
    """Search, fetch, promote and publish against `modelyard hub serve`, all of them in it and without a network."""
    model = tmp_path / "hub" / "tiny" / "base"
    model.mkdir(parents=True)
    (model / "config.json").write_text('{"architectures": ["BertForSequenceClassification"], "model_type": "bert"}')
    (model / "tokenizer.json").write_text("{}")
    (model / "README.md").write_text("---\nlicense: apache-2.0\n---\n# base\n")
    header = b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
    (model / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    (tmp_path / "pipeline.yaml").write_text(PIPELINE)
    for path in (tmp_path, *tmp_path.rglob("*")):
        path.chmod(0o755)
    done = light.run("sh", "-c", LIFE, given=tmp_path, environ={"MODELSCOPE_API_TOKEN": TOKEN})
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert {name: (step["verb"], step["state"]) for name, step in told["steps"].items()} == {
        "found": ("search", "done"),
        "base": ("fetch", "done"),
        "named": ("promote", "done"),
        "out": ("publish", "done"),
    }
    assert told["results"]["out"]["to"] == "modelscope://me/base"
    assert TOKEN not in done.stdout + done.stderr


def test_it_runs_without_rights_on_a_root_that_nobody_can_write(any_image):
    done = any_image.run("sh", "-c", "id -u; id -g; grep CapEff /proc/self/status; echo a > ~/a && echo a > /tmp/a && echo written; echo $HOME")
    assert done.stdout.split() == ["10001", "10001", "CapEff:", "0" * 16, "written", "/home/modelyard"]
    for path in ("/etc/passwd", "/opt/modelyard/bin/modelyard", "/x"):
        assert any_image.run("sh", "-c", f"echo a >> {path}").returncode != 0


def test_nothing_of_it_belongs_to_or_can_be_written_by_its_user(any_image):
    """So a cluster that does not insist on a read-only root has code that a step cannot change either."""
    done = any_image.run(
        "sh", "-c", r"find / -xdev \( -user 10001 -o -perm -002 \) ! -type l ! -path '/home/modelyard*' ! -path '/tmp*' ! -path '/dev/*'"
    )
    assert done.stdout.split() in (["/var/tmp", "/run/lock"], ["/run/lock", "/var/tmp"])


def test_what_pods_and_the_reader_pod_rely_on_is_there(any_image):
    done = any_image.run(
        "sh", "-c", "tar --version > /dev/null && test -s /etc/ssl/certs/ca-certificates.crt && python --version && command -v python"
    )
    version, path = done.stdout.splitlines()
    assert tuple(map(int, re.findall(r"\d+", version)[:2])) >= (3, 11)
    assert path == "/opt/modelyard/bin/python"


def test_no_tool_or_cache_of_the_build_is_left(any_image):
    """Tools by their names, caches and secrets by where they would lie."""
    assert [name for name in TOOLS if any_image.run("sh", "-c", f"command -v {name}").returncode == 0] == []
    root = any_image.root
    for left in ("tools", "src", "dist", "pins", "etc/pip.conf", "etc/uv", "run/secrets/index", "run/secrets/certificates", "root/.cache"):
        assert not (root / left).exists(), left
    assert list((root / "home" / "modelyard").iterdir()) == []
    assert list((root / "tmp").iterdir()) == []
    site = site_packages(any_image)
    assert [name for name in ("hatchling", "pip", "uv") if (site / name).exists()] == []
    assert list(site.glob("*/direct_url.json")) == []


def test_labels(any_image):
    labels = images.labels(any_image.image)
    told = {name.removeprefix("org.opencontainers.image."): value for name, value in labels.items() if name.startswith("org.opencontainers.image.")}
    assert told.pop("description")
    assert told == {"title": f"modelyard {target_of(any_image)}", "version": modelyard.__version__, "licenses": "Apache-2.0"}


def test_byte_code_is_there_for_all_that_compiles(any_image):
    """And says of itself that its source is not to be looked at, so that no clock of a copy makes it stale."""
    site = site_packages(any_image)
    lacking = []
    for source in site.rglob("*.py"):
        cached = source.parent / "__pycache__" / f"{source.stem}.{sys.implementation.cache_tag}.pyc"
        if not cached.exists():
            lacking.append(source)
        elif int.from_bytes(cached.read_bytes()[4:8], "little") != UNCHECKED_HASH:
            pytest.fail(f"{cached} would be compared with its source")
    assert [path for path in lacking if path.parts[len(site.parts)].startswith("modelyard")] == []
    compiles = []
    for source in lacking:  # templates, and tests of other Pythons
        with contextlib.suppress(SyntaxError, UnicodeDecodeError, ValueError):
            compile(source.read_bytes(), str(source), "exec")
            compiles.append(str(source.relative_to(site)))
    assert compiles == []


def test_the_build_left_no_word_of_this_machine(any_image):
    """Not in the configuration, not in the history, and not in the files that machines are set up by. The base image's words are its own."""
    told = json.dumps(images.configuration(any_image.image))
    for variable in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "HTTP_PROXY", "HTTPS_PROXY", "https_proxy"):
        if value := os.environ.get(variable):
            assert value not in told, variable
    for word in (str(images.ROOT), "://", "_TOKEN", "PASSWORD"):
        assert word not in told
    for file in ("hostname", "resolv.conf", "hosts"):
        path = any_image.root / "etc" / file
        assert not path.exists() or not path.read_text().strip(), file
    assert str(images.ROOT) not in "".join(path.read_text() for path in site_packages(any_image).glob("modelyard*/*") if path.is_file())
    bundle = os.environ.get("SSL_CERT_FILE")
    if bundle and os.path.exists(bundle):
        assert certificates(any_image.root / "etc/ssl/certs/ca-certificates.crt") == certificates_of_base()


@pytest.mark.slow
def test_what_a_build_may_use_it_does_not_keep(tmp_path, storage):
    """A build that finds nothing in the cache, with a CA bundle and a version of its own: both are used, and only the version is in the image."""
    name = "localhost/modelyard:0.0.0.dev0-light"
    root = checkout(tmp_path)
    bundle, canary = tmp_path / "bundle.pem", "a canary of the machine that built this"
    bundle.write_text(f"{Path(os.environ.get('SSL_CERT_FILE') or '/etc/ssl/certs/ca-certificates.crt').read_text()}\n{canary}\n")
    images.build("light", "--no-cache", root=root, SSL_CERT_FILE=str(bundle))
    assert images.configuration(name)["Labels"]["org.opencontainers.image.version"] == "0.0.0.dev0"
    with container(name, tmp_path / "run") as made:
        assert made.call("--version").stdout == "modelyard 0.0.0.dev0\n"
        found = subprocess.run(["grep", "-rlF", "-e", canary, "-e", str(bundle), str(made.root)], capture_output=True, text=True, check=False)
        assert (found.returncode, found.stdout) == (1, ""), found.stderr
    assert canary not in json.dumps(images.configuration(name))
    empty = tmp_path / "empty.pem"
    empty.write_text("no certificate in here\n")
    with pytest.raises(HarnessFailure, match="(?i)certificate"):
        images.build("light", "--no-cache", root=root, SSL_CERT_FILE=str(empty))
    with pytest.raises(HarnessFailure, match="Connection refused"):
        images.build("light", "--no-cache", root=root, UV_DEFAULT_INDEX="http://127.0.0.1:1/simple")


@pytest.fixture
def storage(tmp_path, monkeypatch):
    """A storage of buildah's for one test, on top of the usual one: what is built in it is gone afterwards, its layers and containers too."""
    images.base()
    usual = json.loads(run("buildah", "info"))["store"]["GraphRoot"]
    settings = {"driver": "overlay", "graphroot": str(tmp_path / "graph"), "runroot": str(tmp_path / "running")}
    lines = ["[storage]", *(f"{key} = {json.dumps(value)}" for key, value in settings.items())]
    (tmp_path / "storage.conf").write_text("\n".join([*lines, "[storage.options]", f"additionalimagestores = [{json.dumps(usual)}]", ""]))
    monkeypatch.setenv("CONTAINERS_STORAGE_CONF", str(tmp_path / "storage.conf"))
    yield
    run("buildah", "rm", "--all")
    shutil.rmtree(tmp_path / "graph")


@pytest.mark.slow
def test_a_change_of_the_code_leaves_the_packages_as_they_are(any_image, tmp_path):
    """The layers below the code are the same ones, byte by byte: only what is on top is pushed and pulled again."""
    name = f"localhost/modelyard:0.0.0.dev1-{target_of(any_image)}"
    try:
        images.build(target_of(any_image), root=checkout(tmp_path, "0.0.0.dev1"))
        before, after = layers(any_image.image), layers(name)
        same = [old == new for old, new in zip(before, after, strict=True)]
        assert same.index(False) == len(same) - 2, "the code and its entry point"
    finally:
        subprocess.run(["buildah", "rmi", name], capture_output=True, check=False)


def site_packages(found):
    (site,) = (found.root / "opt/modelyard/lib").glob("python*/site-packages")
    return site


def layers(name):
    return json.loads(subprocess.run(["buildah", "inspect", "--type", "image", name], capture_output=True, check=True).stdout)["OCIv1"]["rootfs"][
        "diff_ids"
    ]


def checkout(folder, version="0.0.0.dev0"):
    """What the images are made of, in a folder of its own and under another version."""
    root = folder / "checkout"
    for tree in ("images", "requirements", *images.TREES):
        shutil.copytree(images.ROOT / tree, root / tree, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy2(images.ROOT / file, root)
    source = root / "lib" / "modelyard" / "__init__.py"
    source.write_text(source.read_text().replace(f'"{modelyard.__version__}"', f'"{version}"'))
    return root


def certificates(bundle):
    return set(re.findall(r"-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----", bundle.read_text()))


def certificates_of_base():
    with container(images.base(), Path("/nonexistent")) as base:
        return certificates(base.root / "etc/ssl/certs/ca-certificates.crt")
