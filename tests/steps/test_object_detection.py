"""Detectors: their answers against transformers' own post-processing, and a small one through finetune, evaluate and infer."""

from __future__ import annotations

import io
import json
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from modelyard.errors import BadData, Usage
from modelyard.steps import Evaluate, Finetune, Infer
from modelyard.yard import Yard
from modelyard_jobs import data, evaluate, finetune, infer, models, tasks
from modelyard_jobs.finetune import adapters
from modelyard_jobs.finetune import object_detection as objective_module
from modelyard_jobs.finetune.examples import Examples
from modelyard_jobs.finetune.loop import to_device
from modelyard_jobs.metrics.boxes import Boxes
from modelyard_jobs.tasks.object_detection import ObjectDetection
from modelyard_jobs.tasks.task import Illustrated, Item
from tests.steps import real, scenes
from tests.steps.fake import FakeContext, artifact

NAMES = ["square", "cross"]
_KEYS = count(1)


def fresh(*arguments):
    """A context of its own key: in one yard, steps of one key share their checkpoints."""
    return FakeContext(*arguments, key=f"{next(_KEYS):064x}")


def task(step=Evaluate, **settings):
    return ObjectDetection(step(model="m", data="d", **settings))


class Output:
    def __init__(self, logits, pred_boxes):
        self.logits, self.pred_boxes = logits, pred_boxes


def random_output(classes, seed, images=3, queries=12, spread=3.0):
    torch.manual_seed(seed)
    return Output(torch.randn(images, queries, classes) * spread, torch.rand(images, queries, 4) * 0.5 + 0.1)


def items(sizes):
    return [Item(1, None, about=size) for size in sizes]


SIZES = [(640, 480), (333, 500), (64, 64)]


@pytest.mark.parametrize(
    ("processor", "extra", "options"),
    [
        ("DetrImageProcessorPil", 1, {}),
        ("YolosImageProcessorPil", 1, {}),
        ("RTDetrImageProcessorPil", 0, {}),
        ("DeformableDetrImageProcessorPil", 0, {"top_k": 12}),
        ("ConditionalDetrImageProcessorPil", 0, {"top_k": 12}),
    ],
)
@pytest.mark.parametrize("threshold", [0.3, 0.8])
def test_answers_are_those_of_transformers(processor, extra, options, threshold):
    import transformers

    labels = [f"c{place}" for place in range(5)]
    output = random_output(len(labels) + extra, seed=extra)
    targets = [(height, width) for width, height in SIZES]
    expected = getattr(transformers, processor)().post_process_object_detection(output, threshold=threshold, target_sizes=targets, **options)
    detection = task(threshold=threshold)
    raws = detection.raws({"logits": output.logits.numpy(), "pred_boxes": output.pred_boxes.numpy()}, items(SIZES))
    answers = detection.answers(raws, items(SIZES), labels)
    for answer, theirs in zip(answers, expected, strict=True):
        found = detection.record(answer, labels)["objects"]
        order = theirs["scores"].argsort(descending=True, stable=True)
        corners = theirs["boxes"][order].numpy()
        assert len(found) == len(order) > 0
        assert [each["category"] for each in found] == [labels[label] for label in theirs["labels"][order]]
        assert [each["score"] for each in found] == pytest.approx(theirs["scores"][order].tolist(), abs=2e-6)
        assert np.array([each["bbox"] for each in found]) == pytest.approx(np.hstack([corners[:, :2], corners[:, 2:] - corners[:, :2]]), abs=0.011)
        assert len(answer["scores"]) == 12  # evaluate sees all of them
        assert json.loads(json.dumps(answer)) == answer


def test_an_answer_without_numbers_is_none():
    output = random_output(2, seed=0, images=2)
    output.logits[0, 3, 1] = torch.nan
    raws = task().raws({"logits": output.logits.numpy(), "pred_boxes": output.pred_boxes.numpy()}, items(SIZES[:2]))
    first, second = task().answers(raws, items(SIZES[:2]), NAMES)
    assert first is None
    assert second is not None
    assert task().empty() == {"objects": None}


def test_a_model_with_other_labels_than_scores_is_refused():
    raws = task().raws({name: getattr(random_output(5, 0), name).numpy() for name in ("logits", "pred_boxes")}, items(SIZES))
    with pytest.raises(BadData, match="5 scores for 2 labels"):
        task().answers(raws, items(SIZES), NAMES)


def answer(*objects):
    return {
        "boxes": [box for box, _, _ in objects],
        "labels": [NAMES[label] for _, label, _ in objects],
        "scores": [score for _, _, score in objects],
    }


def test_what_is_right_and_what_is_worst():
    one, two = [10, 10, 20, 20], [50, 50, 20, 20]
    truths = [Boxes.of([one, two], [0, 1]), Boxes.of([one], [0]), Boxes.of([], []), Boxes.of([one], [0])]
    answers = [
        answer((one, 0, 0.9), (two, 0, 0.8), (two, 1, 0.1)),  # misses one, and has one of the wrong class
        answer((one, 0, 0.9), (two, 1, 0.4)),  # what is wrong is under the threshold
        answer((one, 0, 0.7)),
        answer(),
    ]
    detection = task(threshold=0.5)
    found = detection.measure(truths, answers, NAMES)
    assert found.main == "map"
    assert set(found.metrics) == {"map", "ap50", "ap75"}
    assert found.right.tolist() == [False, True, False, False]
    assert found.worst.tolist() == [0, 3, 2]  # 1.8, 1.0, 0.7
    assert [scores["label"] for scores in found.document["classes"]] == NAMES
    assert found.document["boxes"] == {"true": 4, "missed": 2}
    json.dumps(found.document, allow_nan=False)
    assert detection.compared(truths[0], answers[0], NAMES)["predicted"] == [
        {"category": "square", "score": 0.9, "bbox": one},
        {"category": "square", "score": 0.8, "bbox": two},
    ]
    better = detection.differences(truths, answers, [answer()] * 4, NAMES)
    assert better["map"].value == pytest.approx(found.metrics["map"].value)
    with pytest.raises(BadData, match="no image has a box"):
        detection.measure([Boxes.of([], [])], [answer()], NAMES)


@pytest.fixture(scope="module")
def yard(tmp_path_factory):
    return Yard.open(tmp_path_factory.mktemp("detection") / "yard")


@pytest.fixture(scope="module")
def things():
    return scenes.shapes()


@pytest.fixture(scope="module")
def rows(yard, things):
    splits = {name: scenes.compose(things, number, seed) for seed, (name, number) in enumerate({"train": 96, "val": 16, "test": 24}.items())}
    return artifact(yard, "dataset", scenes.dataset(splits, NAMES))


@pytest.fixture(scope="module")
def base(yard, things, tmp_path_factory):
    return artifact(yard, "model", scenes.detector(tmp_path_factory.mktemp("base") / "model", NAMES, classifier=(things, 20)))


@pytest.fixture(scope="module")
def tuned(yard, base, rows, tmp_path_factory):
    """(model, context of the step that made it)."""
    settings = Finetune(model="m", data="d", task="object-detection", epochs=3, batch_size=16, learning_rate=1e-3)
    context = fresh(settings, {"model": base, "data": rows}, yard, tmp_path_factory.mktemp("tuned"))
    finetune.run(context)
    return artifact(yard, "model", context.out, format="safetensors"), context


def test_finetune_lowers_the_loss_and_leaves_a_detector(tuned):
    model, context = tuned
    assert sorted(entry.path for entry in model.files) == ["config.json", "model.safetensors", "preprocessor_config.json"]
    losses = [point["loss"] for point in context.details["history"]["train"]]
    assert len(losses) == 18
    assert np.mean(losses[-3:]) < 0.6 * np.mean(losses[:3])
    validated = [epoch["loss"] for epoch in context.details["history"]["validation"]]
    assert validated[-1] < 0.7 * validated[0]
    assert context.decisions["labels"] == NAMES
    assert context.decisions["columns"] == {"image": "image", "objects": "objects"}
    assert models.load(task(), model, None, torch.float32).labels == NAMES


def test_evaluate_measures_and_draws_the_worst(yard, tuned, rows, tmp_path):
    context = fresh(Evaluate(model="m", data="d", threshold=0.3), {"model": tuned[0], "data": rows}, yard, tmp_path)
    evaluate.run(context)
    document = json.loads((context.out / "metrics.json").read_text())
    assert document["main"] == "map"
    assert document["rows"]["evaluated"] == 24
    for metric in document["metrics"].values():
        assert 0 <= metric["low"] <= metric["value"] <= metric["high"] <= 1
        assert metric["n"] == 24
    assert [curve["label"] for curve in document["curves"]] == NAMES
    assert all(len(curve["precision"]) == 101 for curve in document["curves"])
    assert document["errors"]
    for error in document["errors"]:
        picture = Image.open(context.out / error["picture"])
        assert picture.width > 2 * picture.height * 0.8  # predicted beside true
        assert error["true"]


def test_a_model_against_itself_and_another(yard, tuned, base, rows, tmp_path):
    inputs = {"model": tuned[0], "against": base, "data": rows}
    context = fresh(Evaluate(model="m", against="b", data="d", rows=16), inputs, yard, tmp_path)
    evaluate.run(context)
    metrics = json.loads((context.out / "metrics.json").read_text())["metrics"]
    for metric in metrics.values():
        assert metric["difference"]["low"] <= metric["difference"]["value"] <= metric["difference"]["high"]
    same = fresh(Evaluate(model="m", against="b", data="d", rows=16), {**inputs, "against": tuned[0]}, yard, tmp_path / "same")
    evaluate.run(same)
    metrics = json.loads((same.out / "metrics.json").read_text())["metrics"]
    assert all(metric["difference"]["value"] == metric["difference"]["low"] == metric["difference"]["high"] == 0 for metric in metrics.values())


def test_infer_writes_boxes_and_pictures_in_pixels_of_the_image(yard, tuned, things, tmp_path):
    """The same scenes at twice the size: boxes are twice as large, and a broken image costs its row only."""
    pictures = [picture for picture, _ in scenes.compose(things, 6, seed=9)]
    files = {}
    for scale in (1, 2):
        for number, picture in enumerate(pictures):
            file = io.BytesIO()
            Image.fromarray(picture.repeat(scale, 0).repeat(scale, 1)).save(file, "PNG")
            files[f"{scale}/{number}.png"] = file.getvalue()
    files["2/5.png"] = files["2/5.png"][:60]
    lines = [json.dumps({"image": f"{scale}/{number}.png"}) for number in range(6) for scale in (1, 2)]
    content = artifact(yard, "dataset", {**files, "rows.jsonl": "\n".join(lines) + "\n"})
    settings = Infer(model="m", data="d", threshold=0.0, pictures=3)
    context = fresh(settings, {"model": tuned[0], "data": content}, yard, tmp_path)
    infer.run(context)
    records = [json.loads(line) for path in sorted((context.out / "data").iterdir()) for line in path.read_text().splitlines()]
    assert [record["row"] for record in records] == list(range(12))
    assert records[11]["objects"] is None
    assert records[11]["error"]["category"] == "data"
    for small, large in zip(records[:10:2], records[1:10:2], strict=True):
        assert small["error"] is None
        assert len(small["objects"]) == 20
        # Bilinear resizing of doubled pixels is not exactly the picture before, so only what is sure is compared.
        ours, theirs = small["objects"][0], large["objects"][0]
        assert ours["category"] in NAMES
        assert np.array(theirs["bbox"][2:]) == pytest.approx(2 * np.array(ours["bbox"][2:]), rel=0.25)
    assert sorted(path.name for path in (context.out / "pictures").iterdir()) == ["0.png", "1.png", "2.png"]
    assert Image.open(context.out / "pictures" / "1.png").height == 384 + 22  # 128 pixels, three times
    assert isinstance(task(), Illustrated)


def test_new_labels_get_a_new_head(yard, base, things, tmp_path):
    names = ["circle", "cross", "square"]
    splits = {"train": scenes.compose([(thing, 2 - label) for thing, label in things], 16, 5)}
    content = artifact(yard, "dataset", scenes.dataset(splits, names))
    settings = Finetune(model="m", data="d", task="object-detection", epochs=1, batch_size=8, max_steps=1)
    context = fresh(settings, {"model": base, "data": content}, yard, tmp_path)
    finetune.run(context)
    assert json.loads((context.out / "config.json").read_text())["id2label"] == {"0": "circle", "1": "cross", "2": "square"}
    assert models.load(task(), artifact(yard, "model", context.out, format="safetensors"), None, torch.float32).labels == names


def objective(source, content, scratch, names=NAMES, rows=None, **changes):
    splits = data.read(content, scratch / "rows")
    settings = Finetune(model="m", data="d", task="object-detection")
    made = tasks.of("object-detection", settings)
    dataset = splits["train"]
    columns = made.columns(dataset, truth=True)
    chosen = np.arange(len(dataset)) if rows is None else np.asarray(rows)
    train = Examples(dataset, columns, chosen, made.truths(dataset.select(chosen), columns, names))
    loaded = models.load(made, source, names, torch.float32)
    found = objective_module.ObjectDetection(made, loaded, train, Examples(dataset, columns, chosen[:0], []), 256)
    return found, loaded.model


def test_the_loss_is_the_models_own_summed_over_boxes(base, rows, tmp_path):
    found, model = objective(base, rows, tmp_path)
    places = np.arange(6)
    batch, total = found.collate(places)
    assert total == len(batch["boxes"]) == sum(len(found.train.examples.truths[place].labels) for place in places)
    expected = []
    for place in places:
        truth = found.train.examples.truths[place]
        centre = truth.boxes[:, :2] + truth.boxes[:, 2:] / 2
        boxes = torch.tensor(np.hstack([centre, truth.boxes[:, 2:]]) / scenes.SIDE, dtype=torch.float32)
        expected.append({"class_labels": torch.tensor(truth.labels), "boxes": boxes})
    model.eval()  # without denoising, which draws random numbers
    with torch.no_grad():
        theirs = model(pixel_values=batch["pixel_values"], labels=expected).loss
        parts = [found.loss(model, to_device(found.collate(part)[0], "cpu")) for part in (places[:2], places[2:])]
        assert float(found.loss(model, batch)) == pytest.approx(float(theirs) * total, rel=1e-5)
        assert float(sum(parts)) == pytest.approx(float(theirs) * total, rel=1e-3)  # however the rows are divided


def test_images_without_boxes_and_crowds_are_no_target(base, yard, tmp_path, things):
    files = scenes.dataset({"train": scenes.compose(things, 4, 1)}, NAMES)
    name = "annotations/instances_train.json"
    content = json.loads(files[name])
    content["annotations"] = [{**each, "iscrowd": int(each["image_id"] == 1)} for each in content["annotations"] if each["image_id"] != 0]
    found, model = objective(base, artifact(yard, "dataset", {**files, name: json.dumps(content)}), tmp_path)
    batch, total = found.collate(np.array([0, 1]))
    assert (batch["counts"].tolist(), total) == ([0, 0], 0.0)
    value = found.loss(model.train(), batch)
    value.backward()
    assert torch.isfinite(value)
    model.eval()  # without denoising, which draws random numbers
    with torch.no_grad():
        parts = [found.collate(part) for part in (np.array([0, 1]), np.array([2]), np.array([3]))]
        whole, boxes = found.collate(np.arange(4))
        assert sum(count for _, count in parts) == boxes > 0
        # What is said of images without boxes is said once, in a pass of their own too.
        assert float(sum(found.loss(model, part) for part, _ in parts)) == pytest.approx(float(found.loss(model, whole)), rel=1e-3)
    with pytest.raises(BadData, match="has a box"):
        objective(base, artifact(yard, "dataset", {**files, name: json.dumps(content)}), tmp_path, rows=[0, 1])


def test_adapters_of_a_detector_train_what_is_new_whole_wherever_it_stands(base, tmp_path):
    fitted = models.load(ObjectDetection(Finetune(model="m", data="d")), base, ["one", "two", "three"], torch.float32)
    put = adapters.attach(fitted.model, 4, fitted.new)
    heads = ("class_embed", "enc_score_head", "denoising_class_embed")
    assert len(put.whole) == 7
    for name, weight in fitted.model.named_parameters():
        assert weight.requires_grad == (".lora_" in name or any(head in name for head in heads)), name
        assert ".lora_" not in name or not any(head in name for head in heads)
    adapters.merge(fitted.model, put, "f" * 64, tmp_path)
    plain = models.load(ObjectDetection(Finetune(model="m", data="d")), base, ["one", "two", "three"], torch.float32)
    assert fitted.model.state_dict().keys() == plain.model.state_dict().keys()


def test_a_broken_image_is_left_out_and_a_tenth_of_them_is_too_much(base, yard, tmp_path, things):
    files = scenes.dataset({"train": scenes.compose(things, 20, 1)}, NAMES)
    broken = {name: files[name][:70] for name in ("train/00003.png", "train/00005.png", "train/00006.png")}
    two = {name: content for name, content in broken.items() if not name.endswith("6.png")}
    found, model = objective(base, artifact(yard, "dataset", {**files, **two}), tmp_path)
    batch, total = found.collate(np.array([2, 3, 4, 5]))
    assert len(batch["pixel_values"]) == len(batch["counts"]) == 2
    assert total == sum(len(found.train.examples.truths[place].labels) for place in (2, 4))
    alone, total = found.collate(np.array([3]))
    assert (alone["pixel_values"].shape, total) == ((1, 3, scenes.SIDE, scenes.SIDE), 0.0)
    assert torch.isfinite(found.loss(model, alone))
    assert found.broken == {"train": 2, "validation": 0}
    found, _ = objective(base, artifact(yard, "dataset", {**files, **broken}), tmp_path / "more")
    with pytest.raises(BadData, match="3 of 20 images are broken"):
        found.collate(np.arange(20))


def test_a_box_outside_of_its_image_is_named(base, yard, tmp_path):
    file = io.BytesIO()
    Image.new("RGB", (50, 40)).save(file, "PNG")
    lines = [{"image": "a.png", "objects": {"bbox": [[10, 10, 41.5, 5]], "category": ["cross"]}}]
    content = artifact(yard, "dataset", {"a.png": file.getvalue(), "train.jsonl": json.dumps(lines[0]) + "\n"})
    found, _ = objective(base, content, tmp_path)
    with pytest.raises(BadData) as caught:
        found.collate(np.array([0]))
    assert "row 0, counted from 0, box [10.0, 10.0, 41.5, 5.0]" in str(caught.value)
    assert "a box reaches out of its image" in str(caught.value)


def test_a_row_with_a_wrong_box_is_left_out_and_counted(yard, base, tmp_path, things):
    files = scenes.dataset({name: scenes.compose(things, 8, seed) for seed, name in enumerate(("train", "val", "test"))}, NAMES)
    for split, box in (("train", [60, 60, 30, 30]), ("test", [5, 5, 0, 10])):
        name = f"annotations/instances_{split}.json"
        content = json.loads(files[name])
        content["annotations"][0]["bbox"] = box
        files[name] = json.dumps(content).encode()
    inputs = {"model": base, "data": artifact(yard, "dataset", files)}
    context = fresh(Finetune(model="m", data="d", task="object-detection", epochs=1, batch_size=8), inputs, yard, tmp_path / "tuned")
    finetune.run(context)
    assert context.details["rows"]["train"] == 7
    assert context.details["rows"]["faults"] == {"a box reaches out of its image": 1}
    context = fresh(Evaluate(model="m", data="d", max_error_rate=0.2), inputs, yard, tmp_path / "score")
    evaluate.run(context)
    counted = json.loads((context.out / "metrics.json").read_text())["rows"]
    assert (counted["evaluated"], counted["faults"]) == (7, {"a box has no extent": 1})


def test_a_model_that_diverges_is_not_a_crash(base, rows, tmp_path):
    found, model = objective(base, rows, tmp_path)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(torch.nan)
    value = found.loss(model.train(), found.collate(np.arange(2))[0])
    value.backward()
    assert torch.isnan(value)


def test_without_scipy_it_says_so(base, rows, tmp_path, monkeypatch):
    monkeypatch.setattr(objective_module, "find_spec", lambda _: None)
    with pytest.raises(Usage, match="scipy"):
        objective(base, rows, tmp_path)


def detr(folder: Path) -> Path:
    """A DETR of a few kilobytes: softmax with a class for nothing, and images of any size, with a mask."""
    from transformers import DetrConfig, DetrForObjectDetection, DetrImageProcessorPil, ResNetConfig

    torch.manual_seed(0)
    backbone = ResNetConfig(embedding_size=8, hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1], layer_type="basic", out_features=["stage4"])
    config = DetrConfig(
        backbone=None,
        backbone_config=backbone,
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        num_queries=5,
        init_xavier_std=3.0,
        id2label=dict(enumerate(NAMES)),
        label2id={name: place for place, name in enumerate(NAMES)},
    )
    DetrForObjectDetection(config).save_pretrained(folder)
    DetrImageProcessorPil(size={"shortest_edge": 64, "longest_edge": 128}).save_pretrained(folder)
    return folder


def test_images_of_many_sizes_in_one_batch_are_as_transformers_has_them(yard, tmp_path):
    """Padded, with a mask. A DETR's convolutions see the padding, so that the same image alone gives scores that differ in the third digit."""
    from transformers import AutoModelForObjectDetection, DetrImageProcessorPil

    rng = np.random.default_rng(0)
    pictures = [
        Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8)) for width, height in [(90, 60), (64, 64), (50, 100), (90, 61)]
    ]
    files = {}
    for number, picture in enumerate(pictures):
        file = io.BytesIO()
        picture.save(file, "PNG")
        files[f"{number}.png"] = file.getvalue()
    folder = detr(tmp_path / "detr")
    lines = "".join(json.dumps({"image": name}) + "\n" for name in files)
    inputs = {"model": artifact(yard, "model", folder), "data": artifact(yard, "dataset", {**files, "rows.jsonl": lines})}
    context = fresh(Infer(model="m", data="d", threshold=0.0, pictures=0), inputs, yard, tmp_path / "work")
    infer.run(context)
    records = [json.loads(line) for line in next((context.out / "data").iterdir()).read_text().splitlines()]
    model, processor = AutoModelForObjectDetection.from_pretrained(folder).eval(), DetrImageProcessorPil.from_pretrained(folder)
    with torch.inference_mode():
        output = model(**processor(pictures, return_tensors="pt"))
    expected = processor.post_process_object_detection(output, threshold=0.0, target_sizes=[(picture.height, picture.width) for picture in pictures])
    assert len({record["objects"][0]["bbox"][0] for record in records}) == len(pictures)
    for record, theirs in zip(records, expected, strict=True):
        corners = theirs["boxes"][theirs["scores"].argsort(descending=True)].numpy()
        assert [each["score"] for each in record["objects"]] == pytest.approx(theirs["scores"].sort(descending=True).values.tolist(), abs=2e-6)
        assert np.array([each["bbox"][:2] for each in record["objects"]]) == pytest.approx(corners[:, :2], abs=0.011)


GARMENTS = {1: "trouser", 5: "sandal", 7: "sneaker", 8: "bag", 9: "ankle boot"}
"""Place in Fashion-MNIST's labels -> name."""


def garments(split, most):
    pictures, labels = real.fashion()[split]
    chosen = np.flatnonzero(np.isin(labels, list(GARMENTS)))[:most]
    return [(pictures[place], list(GARMENTS).index(int(labels[place]))) for place in chosen]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_real_garments_are_found(seed, tmp_path):
    """Scenes of one or two garments from Fashion-MNIST; those of the test split are made of other pictures than those of train."""
    yard, names = Yard.open(tmp_path / "yard"), list(GARMENTS.values())
    train, test = garments("train", 10_000), garments("test", 5_000)
    start = artifact(yard, "model", scenes.detector(tmp_path / "base", names, seed=seed, classifier=(train, 560)))
    splits = {"train": scenes.compose(train, 4800, seed), "val": scenes.compose(train, 100, 100 + seed), "test": scenes.compose(test, 300, 200)}
    content = artifact(yard, "dataset", scenes.dataset(splits, names))
    settings = Finetune(model="m", data="d", task="object-detection", epochs=3, batch_size=32, learning_rate=1e-3, warmup=0.05, seed=seed)
    context = fresh(settings, {"model": start, "data": content}, yard, tmp_path / "tuned")
    finetune.run(context)
    model = artifact(yard, "model", context.out, format="safetensors")
    context = fresh(Evaluate(model="m", data="d"), {"model": model, "data": content}, yard, tmp_path / "score")
    evaluate.run(context)
    ap50 = json.loads((context.out / "metrics.json").read_text())["metrics"]["ap50"]
    assert ap50["value"] >= 0.45, ap50
    assert ap50["low"] < ap50["value"] < ap50["high"]


def test_answers_name_labels_so_that_models_with_another_order_compare():
    output = random_output(len(NAMES), seed=4)
    raws = task().raws({"logits": output.logits.numpy(), "pred_boxes": output.pred_boxes.numpy()}, items(SIZES))
    turned = task().raws({"logits": output.logits.numpy()[..., ::-1], "pred_boxes": output.pred_boxes.numpy()}, items(SIZES))
    assert task().answers(turned, items(SIZES), NAMES[::-1]) == task().answers(raws, items(SIZES), NAMES)
