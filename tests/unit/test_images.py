"""images/build.py: which tool it takes, what it tells it, and what it says where it cannot build. The tools here write down what they are told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import modelyard

BUILD = Path(__file__).parents[2] / "images" / "build.py"
TOOL = """#!{python} -IS
import json, os, sys
if sys.argv[1] == "info":
    sys.exit({answer})
words = sys.argv[1:]
secrets = dict(word.split(",src=") for word in words if word.startswith("id="))
contents = {{name.removeprefix("id="): open(path).read() for name, path in secrets.items()}}
with open(os.environ["TOLD"], "a") as told:
    told.write(json.dumps([os.path.basename(sys.argv[0]), words, contents]) + "\\n")
open(words[words.index("--iidfile") + 1], "w").write("sha256:abc")
sys.exit({built})
"""


@pytest.fixture
def machine(tmp_path):
    """A machine that has these tools and no others."""

    class Machine:
        told = tmp_path / "told"

        def has(self, name, *, works=True, builds=True):
            tool = tmp_path / "bin" / name
            tool.parent.mkdir(exist_ok=True)
            tool.write_text(TOOL.format(python=sys.executable, answer=0 if works else 1, built=0 if builds else 1))
            tool.chmod(0o755)

        def build(self, *targets, **environ):
            clean = {"PATH": str(tmp_path / "bin"), "TOLD": str(self.told), **environ}
            return subprocess.run([sys.executable, str(BUILD), *targets], env=clean, capture_output=True, text=True, check=False)

        def words(self):
            return [json.loads(line) for line in self.told.read_text().splitlines()]

    return Machine()


def option(words, name):
    return [words[place + 1] for place, word in enumerate(words) if word == name]


def test_both_images_are_built_by_the_first_tool_that_works(machine):
    machine.has("docker", works=False)
    machine.has("podman")
    machine.has("buildah")
    done = machine.build()
    assert done.returncode == 0, done.stderr
    assert [tool for tool, _, _ in machine.words()] == ["podman", "podman"]
    assert [option(words, "--target") for _, words, _ in machine.words()] == [["light"], ["cuda"]]
    assert [option(words, "--tag") for _, words, _ in machine.words()] == [
        [f"modelyard:{modelyard.__version__}-{target}"] for target in ("light", "cuda")
    ]
    assert done.stdout.count("sha256:abc after") == 2


def test_a_tool_that_is_asked_for_is_taken_or_missed(machine):
    machine.has("docker")
    machine.has("buildah")
    assert machine.build("light", CONTAINER_TOOL="buildah").returncode == 0
    assert [tool for tool, _, _ in machine.words()] == ["buildah"]
    missed = machine.build("light", CONTAINER_TOOL="podman")
    assert (missed.returncode, missed.stdout) == (1, "")
    assert missed.stderr.startswith("no podman that works here")
    assert machine.build("light", CONTAINER_TOOL="sh").stderr == "CONTAINER_TOOL=sh: it must be docker, podman, buildah\n"


def test_without_a_tool_it_says_in_one_line_what_to_install(machine):
    machine.has("docker", works=False)
    done = machine.build()
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "apt-get install buildah" in done.stderr


def test_what_the_environment_says_reaches_the_build(machine, tmp_path):
    machine.has("docker")
    bundle = tmp_path / "bundle.pem"
    bundle.write_text("certificates of a company")
    index = "https://user:token@packages.example/simple"
    done = machine.build("light", BASE="example/base:1", BUILD_OPTIONS="--network host", SSL_CERT_FILE=str(bundle), UV_DEFAULT_INDEX=index)
    assert done.returncode == 0, done.stderr
    ((_, words, secrets),) = machine.words()
    assert option(words, "--build-arg") == [f"VERSION={modelyard.__version__}", "BASE=example/base:1", "VARIANT=default"]
    assert option(words, "--network") == ["host"]
    assert secrets == {"certificates": "certificates of a company", "index": index}
    assert "token" not in "".join(words) + done.stdout + done.stderr
    (file,) = [word.partition(",src=")[2] for word in words if word.startswith("id=index")]
    assert not os.path.exists(file)


def test_a_variant_must_have_a_lock(machine):
    machine.has("docker")
    done = machine.build(VARIANT="cu99")
    assert (done.returncode, done.stderr) == (1, "VARIANT=cu99: there is no requirements/jobs-cu99.txt\n")
    assert machine.build("light", VARIANT="cu99").returncode == 0, "the light image has no variants"


def test_a_build_that_fails_fails(machine):
    machine.has("docker", builds=False)
    done = machine.build()
    assert done.returncode == 1
    assert "sha256:abc" not in done.stdout
    assert len(machine.words()) == 1, "it stops at the first"


def test_an_image_that_does_not_exist_is_a_usage_error(machine):
    assert "there is no image heavy" in machine.build("heavy").stderr
