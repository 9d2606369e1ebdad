"""examples/imdb-distilbert.yaml as it stands, against a served hub that has a small DistilBERT and rows of IMDB's form under the real names."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.hubs.serving import TOKEN, Served, serving
from tests.steps.tiny import WORDS, tiny_tokenizer
from tests.steps.yardstick import Place

EXAMPLE = Path(__file__).parents[2] / "examples" / "imdb-distilbert.yaml"
PRAISE, BLAME = ("wonderful", "moving", "superb", "delightful"), ("tedious", "clumsy", "wretched", "pointless")


def reviews(count: int, seed: int) -> tuple[list[str], list[int]]:
    """Texts of 5 to 60 words with two telling ones, one text in ten lying, sorted by label as IMDB's are."""
    chance = random.Random(seed)
    texts = []
    for number in range(count):
        telling = PRAISE if (number >= count // 2) == (chance.random() > 0.1) else BLAME
        words = [*chance.choices(telling, k=2), *chance.choices(WORDS[8:], k=chance.randint(3, 58))]
        chance.shuffle(words)
        texts.append(f"{' '.join(words)} {number}")
    return texts, [int(number >= count // 2) for number in range(count)]


def write_rows(folder: Path) -> None:
    """train and test with a declared label, and the split without labels, as the real repository has them."""
    import datasets

    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])})
    folder.mkdir(parents=True)
    for split, count, seed in (("train", 1200, 1), ("test", 600, 2), ("unsupervised", 40, 3)):
        texts, labels = reviews(count, seed)
        labels = [-1] * count if split == "unsupervised" else labels
        datasets.Dataset.from_dict({"text": texts, "label": labels}, features=features).to_parquet(folder / f"{split}-00000-of-00001.parquet")


def write_model(folder: Path) -> None:
    """A DistilBERT of two layers from its config class, with a tokenizer trained on the spot, that has already seen such reviews.

    The real one learns from 1000 rows because it knows the language; this one knows it by a few steps of what it will be asked.
    """
    import torch
    import transformers

    texts, labels = reviews(256, 9)
    tiny_tokenizer(folder, texts)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.model_max_length = 512
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.DistilBertConfig(
        vocab_size=len(tokenizer), dim=48, hidden_dim=96, n_layers=2, n_heads=2, max_position_embeddings=512, id2label={0: "neg", 1: "pos"}
    )
    model = transformers.DistilBertForSequenceClassification(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(40):
        chosen = random.Random(step).sample(range(len(texts)), 32)
        batch = tokenizer([texts[place] for place in chosen], padding=True, return_tensors="pt")
        model(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=torch.tensor([labels[place] for place in chosen])
        ).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval().save_pretrained(folder)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\nlanguage: en\n---\nA small one.\n")


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("hub")
    write_model(folder / "AI-ModelScope" / "distilbert-base-uncased")
    write_rows(folder / "datasets" / "stanfordnlp" / "imdb" / "plain_text")
    with serving(folder, tmp_path_factory.mktemp("served")) as served:
        yield served


@contextmanager
def watched_processes(token: str) -> Iterator[list[str]]:
    """The command lines with the token in them that any process of this machine has meanwhile."""
    seen, over = list[str](), threading.Event()

    def watch() -> None:
        while not over.wait(0.05):
            for process in Path("/proc").glob("[0-9]*/cmdline"):
                with suppress(OSError):
                    if token in (line := process.read_text(errors="replace")):
                        seen.append(line)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        over.set()
        watcher.join()


def test_the_example_runs_as_it_stands_and_leaves_no_token(hub: Served, tmp_path: Path) -> None:
    place = Place(tmp_path)
    environ = {"MODELYARD_HUBS_MODELSCOPE": hub.url, "MODELYARD_HUBS_HUGGINGFACE": hub.url, "MODELSCOPE_API_TOKEN": TOKEN}
    with watched_processes(TOKEN) as seen:
        said = place.modelyard("run", str(EXAMPLE), **environ)
    shown = place.json("show")
    assert set(place.states().values()) == {"done"}
    assert shown["metrics"]["score"]["accuracy"]["n"] == 500
    assert shown["metrics"]["score"]["accuracy"]["value"] >= 0.8
    assert {found["ref"] for found in shown["results"]["candidates"]["found"]} == {"modelscope://AI-ModelScope/distilbert-base-uncased"}
    released = shown["results"]["release"]
    assert {file["path"] for file in released["files"]} >= {"README.md", "configuration.json", "config.json", "model.safetensors", "onnx/model.onnx"}
    said += place.modelyard("run", str(EXAMPLE), **environ)
    assert place.states()["tuned"] == "reused"
    assert place.json("show")["results"]["release"]["unchanged"] is True
    said += place.modelyard("report", "--out", str(tmp_path / "report.html"))
    assert "0.9" in (tmp_path / "report.html").read_text()
    assert seen == []
    assert TOKEN not in "".join(said)
    left = [path for path in [*tmp_path.rglob("*"), *hub.folder.rglob("*")] if path.is_file()]
    assert len(left) > 50
    assert [path for path in left if TOKEN.encode() in path.read_bytes()] == []
