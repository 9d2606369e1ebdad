"""README's way to a cluster: its commands as they stand there, typed one after the other; of them only names are another's.

The hub is one that this cluster has, with a small encoder and a few thousand reviews under the names that examples/imdb-distilbert.yaml uses.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

import modelyard
from tests.cluster import images
from tests.cluster.chart import Helm
from tests.cluster.harness import volumes
from tests.cluster.harness.binaries import program
from tests.cluster.harness.local import LocalCluster
from tests.cluster.site import IMAGE, LEFT_OUT, PORT, ROOT, TOKEN, Site, fill

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```console\n(.*?)```", README[README.index("## On a cluster") : README.index("## Hubs")], re.DOTALL)
WAY, AGAIN = (
    [line.removeprefix("$ ").split("  #")[0].strip() for line in block.splitlines() if line.startswith("$ ")] for block in (BLOCKS[0], BLOCKS[-1])
)
MODEL, DATA = "AI-ModelScope/distilbert-base-uncased", "datasets/stanfordnlp/imdb"


class Person:
    """Who types the commands, in one shell after the other; what one exports the next ones have."""

    def __init__(self, cluster: LocalCluster, namespace: str, folder: Path, hub: str) -> None:
        self.namespace = namespace
        self.folder = folder
        for name in ("examples", "charts"):
            (folder / name).symlink_to(ROOT / name)
        (folder / "bin").mkdir()
        for name, path in (("kubectl", shutil.which("kubectl") or program("kubectl")), ("helm", Helm().program)):
            (folder / "bin" / name).symlink_to(path)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(LEFT_OUT)}
        search = f"{folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        hubs = {f"MODELYARD_HUBS_{name}": hub for name in ("MODELSCOPE", "HUGGINGFACE")}
        self.environ = {**kept, **hubs, "PATH": search, "KUBECONFIG": str(cluster.kubeconfig), "HOME": str(folder), "CI": "1"}

    def types(self, line: str) -> str:
        """What a command prints; it has to end well."""
        line = line.replace("registry.example.com/team/modelyard:0.1.0", IMAGE).replace(
            "registry.example.com/team/modelyard", IMAGE.partition(":")[0]
        )
        line = re.sub(r"(-n |NAMESPACE=|namespace )ml\b", rf"\g<1>{self.namespace}", line).replace("…", TOKEN)
        if line.startswith("export "):
            self.environ |= dict(word.split("=", 1) for word in shlex.split(line)[1:])
            return ""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", line], env=self.environ, cwd=self.folder, capture_output=True, text=True, timeout=900, check=False
        )
        assert done.returncode == 0, f"{line}: exit {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-4000:]}"
        return done.stdout


@pytest.fixture(scope="module")
def person(local_cluster: LocalCluster, demo_site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Person]:
    for target in images.TARGETS:
        local_cluster.load_image(images.image(target))
    tutorial = tmp_path_factory.mktemp("tutorial")
    shutil.copytree(demo_site.hub / "sentence-transformers" / "all-MiniLM-L6-v2", tutorial / MODEL)
    shutil.copytree(demo_site.hub / "datasets" / "hutto" / "movie-reviews", tutorial / DATA)
    (tutorial / MODEL / "README.md").write_text("The same weights under the tutorial's name.\n")
    for folder in (MODEL, DATA):
        (tutorial / folder / "SHA256SUMS").unlink(missing_ok=True)
    fill(demo_site.hub, tutorial)
    namespace = f"ml-{uuid.uuid4().hex[:8]}"
    volumes.make_unclaimed(local_cluster, namespace, "modelyard", size="200Gi")
    try:
        yield Person(local_cluster, namespace, tmp_path_factory.mktemp("person"), f"http://hub.{demo_site.namespace}.svc:{PORT}")
    finally:
        local_cluster.remove_namespace(namespace)
        volumes.remove_volumes(local_cluster, namespace)


@pytest.fixture(scope="module")
def said(person: Person) -> dict[str, str]:
    """What each command of the way printed. The images are those that the tests have made the same way."""
    assert WAY[0] == "make images"
    assert (ROOT / "Makefile").read_text().count("\nimages:") == 1
    return {line: person.types(line) for line in WAY[1:]}


def test_from_nothing_to_a_report(person: Person, said: dict[str, str]) -> None:
    assert f"registry.example.com/team/modelyard:{modelyard.__version__}" in README
    ran = next(text for line, text in said.items() if line.startswith("modelyard run"))
    rows = [tuple(row.split()[:3]) for row in ran.splitlines()]
    assert {("tuned", "finetune", "done"), ("score", "evaluate", "done"), ("onnx", "export", "done"), ("predictions", "infer", "done")} <= set(rows)
    assert "imdb-distilbert" in said["modelyard explain"]
    report = (person.folder / "report.html").read_text()
    assert "imdb-distilbert" in report
    assert "<svg" in report
    assert "epoch" in said["modelyard logs"]


@pytest.mark.slow
def test_again_and_again(person: Person, said: dict[str, str]) -> None:
    """A name has to have been moved once for a rollback: two models are promoted before."""
    assert said
    promoted = []
    for model in (MODEL, "sentence-transformers/all-MiniLM-L6-v2"):
        person.types(f"modelyard promote --model modelscope://{model} --to yard://models/movie-sentiment@champion")
        promoted.append(champion(person))
    told = {line: person.types(line) for line in AGAIN}
    person.types("modelyard schedule suspend movie-retrain")
    assert "movie-retrain-" in told["modelyard schedule trigger movie-retrain -d"]
    assert promoted[0] != promoted[1]
    assert champion(person) == promoted[0]


def champion(person: Person) -> str:
    """The digest of what the name stands for."""
    return str(json.loads(person.types("modelyard yard show models/movie-sentiment@champion -o json"))["digest"])
