"""A model laid onto several devices: its real blocks, the choice under a patched table of memory, and a CPU that poses as an accelerator."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from accelerate import infer_auto_device_map
from accelerate.utils import check_device_map, check_tied_parameters_on_same_device, find_tied_parameters
from torch import nn

from modelyard.devices import HOST, WHOLE, Placement
from modelyard.devices import place as choose
from modelyard.errors import DeviceOom
from modelyard.quantities import parse_bytes
from modelyard.steps import Infer
from modelyard.yard import Yard
from modelyard_jobs import dispatch, infer
from tests.steps.fake import FakeContext, artifact
from tests.steps.tiny import WORDS, tiny_model

TINY = {"vocab_size": 100, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 2, "pad_token_id": 0}
LLAMA = transformers.LlamaConfig(**TINY, bos_token_id=1, eos_token_id=2, tie_word_embeddings=True)
BERT = transformers.BertConfig(**TINY)
DISTILBERT = transformers.DistilBertConfig(vocab_size=100, dim=32, n_layers=2, n_heads=2, hidden_dim=64)
BART = transformers.BartConfig(
    vocab_size=100,
    d_model=32,
    encoder_layers=2,
    decoder_layers=2,
    encoder_attention_heads=2,
    decoder_attention_heads=2,
    encoder_ffn_dim=64,
    decoder_ffn_dim=64,
    forced_eos_token_id=2,
    eos_token_id=2,
)
VIT = transformers.ViTConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=32)
CAUSAL, MASKED = transformers.AutoModelForCausalLM, transformers.AutoModelForMaskedLM
SEQUENCE, IMAGE = transformers.AutoModelForSequenceClassification, transformers.AutoModelForImageClassification
MODELS = [(CAUSAL, LLAMA), (MASKED, BERT), (SEQUENCE, BERT), (MASKED, DISTILBERT), (SEQUENCE, BART), (IMAGE, VIT)]


class Told(list[tuple[str, Any, str]]):
    """What was decided."""

    def __call__(self, name: str, value: Any, reason: str) -> None:
        self.append((name, value, reason))


def asked(device: str = "cuda", **settings: Any) -> Any:
    """A context of a step with these settings."""
    return SimpleNamespace(device=device, settings=SimpleNamespace(**{"max_memory_per_gpu": None, "cpu_offload": False, **settings}))


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """The table of memory, to be filled by the test; the host has little."""
    table: dict[str, int] = {}
    monkeypatch.setattr(dispatch, "memory", lambda device: dict(table))
    monkeypatch.setattr(dispatch, "host_memory", lambda: 10**6)
    return table


def size_of(model: nn.Module) -> int:
    tensors = {id(tensor): tensor for tensor in [*model.parameters(), *model.buffers()]}
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


@pytest.mark.parametrize(("auto", "config"), MODELS, ids=lambda value: getattr(value, "model_type", getattr(value, "__name__", "")))
def test_blocks_are_the_model_once_whole_and_tied_together(auto: Any, config: Any) -> None:
    model = dispatch.skeleton(auto, config, torch.bfloat16)
    assert {tensor.device.type for tensor in model.parameters()} == {"meta"}
    found = dispatch.blocks(model)
    assert sum(block.size for block in found) == size_of(model)
    # Every other one on another device: what that parts may be parted.
    laid = {name: place % 2 for place, block in enumerate(found) for name in block.names}
    check_device_map(model, laid)
    for group in find_tied_parameters(model):
        assert len({next(device for part, device in laid.items() if dispatch._inside(name, part)) for name in group}) == 1
    whole = {name for name, module in model.named_modules() if type(module).__name__ in (model._no_split_modules or ())}
    assert not [part for part in laid for name in whole if part.startswith(f"{name}.") and part not in whole]


def test_a_model_that_does_not_say_what_stays_whole_is_one_block() -> None:
    model = dispatch.skeleton(MASKED, DISTILBERT, torch.float32)
    assert [block.names for block in dispatch.blocks(model)] == [(WHOLE,)]


def test_a_cpu_needs_no_placement() -> None:
    assert dispatch.place(asked("cpu"), Told()) is None


def test_what_fits_one_device_lies_there(room: dict[str, int]) -> None:
    room.update({"cuda:0": 10**6, "cuda:1": 10**6})
    told = Told()
    place = dispatch.place(asked(), told)
    assert place
    found = place(dispatch.skeleton(CAUSAL, LLAMA, torch.float32))
    assert dispatch.device_map(found) == {"": 0}
    assert told == [("placement", "cuda:0", "174 KiB fit the 977 KiB of cuda:0")]


def test_a_limit_per_accelerator_spreads_it_with_the_reason(room: dict[str, int]) -> None:
    room.update({"cuda:0": 10**9, "cuda:1": 10**9})
    told = Told()
    place = dispatch.place(asked(max_memory_per_gpu="100Ki"), told)
    assert place
    found = place(model := dispatch.skeleton(CAUSAL, LLAMA, torch.float32))
    laid = dispatch.device_map(found)
    assert [laid[name] for name in ("model.embed_tokens", "lm_head", "model.layers.0", "model.layers.1")] == [0, 0, 0, 0]
    assert [laid[name] for name in ("model.layers.2", "model.layers.3", "model.norm", "model.rotary_emb")] == [1, 1, 1, 1]
    check_tied_parameters_on_same_device(find_tied_parameters(model), laid)
    ((name, value, reason),) = told
    assert name == "placement"
    assert value == {"cuda:0": "model.embed_tokens … model.layers.1 (4)", "cuda:1": "model.layers.2 … model.rotary_emb (4)"}
    assert reason.startswith("174 KiB fit no single one of 100 KiB (cuda:0) + 100 KiB (cuda:1)")


@pytest.mark.parametrize(
    ("settings", "method", "says", "remedy"),
    [
        ({}, None, "80.7 KiB are left over", "resources: {gpus: 4}, or cpu_offload: true, which is slow"),
        ({"max_memory_per_gpu": "42Ki"}, None, "161 KiB are left over", "a larger max_memory_per_gpu, or resources: {gpus: 5}, or cpu_offload"),
        ({}, "full", "full training takes 4 times the weights", "accelerators with more memory, or method: lora"),
        ({"cpu_offload": True}, "lora", "cpu_offload is for steps that only read weights", "resources: {gpus: 4}"),
    ],
)
def test_what_does_not_fit_says_the_arithmetic_and_the_next_command(
    room: dict[str, int], settings: Mapping[str, Any], method: str | None, says: str, remedy: str
) -> None:
    room.update({"cuda:0": 75 * 1024})
    if not settings.get("max_memory_per_gpu"):
        room["cuda:1"] = 60 * 1024
    told = Told()
    place = dispatch.place(asked(**settings), told, method=method)
    assert place
    with pytest.raises(DeviceOom) as raised:
        place(dispatch.skeleton(CAUSAL, LLAMA, torch.float32))
    assert says in raised.value.why
    assert raised.value.remedy.startswith(remedy)
    assert ("cpu_offload" in raised.value.remedy) == (method is None)
    assert told == []


def test_the_host_takes_what_is_left_only_where_the_step_says_so(room: dict[str, int]) -> None:
    room.update({"cuda:0": 120 * 1024})
    told = Told()
    place = dispatch.place(asked(cpu_offload=True), told)
    assert place
    found = place(dispatch.skeleton(CAUSAL, LLAMA, torch.float32))
    assert set(found.devices) == {"cuda:0", HOST}
    assert set(dispatch.device_map(found).values()) == {0, HOST}
    assert "slow" in told[0][2]
    assert "host" in told[0][1]
    monkey = dispatch.place(asked(), Told())
    assert monkey
    with pytest.raises(DeviceOom, match="does not fit"):
        monkey(dispatch.skeleton(CAUSAL, LLAMA, torch.float32))


def test_dtype_counts(room: dict[str, int]) -> None:
    room.update({"cuda:0": 100 * 1024})
    place = dispatch.place(asked(), Told())
    assert place
    assert not place(dispatch.skeleton(CAUSAL, LLAMA, torch.bfloat16)).parted
    with pytest.raises(DeviceOom):
        place(dispatch.skeleton(CAUSAL, LLAMA, torch.float32))


@pytest.mark.parametrize(("auto", "config"), MODELS[:3], ids=["llama", "bert-lm", "bert"])
def test_weights_laid_by_the_map_answer_as_those_of_the_whole_model(room: dict[str, int], tmp_path: Path, auto: Any, config: Any) -> None:
    torch.manual_seed(0)
    whole = auto.from_config(config).eval()
    whole.save_pretrained(tmp_path / "model")
    room["cuda:0"] = size_of(whole) * 4 // 5
    place = dispatch.place(asked(cpu_offload=True), Told())
    assert place
    placement = place(dispatch.skeleton(auto, config, torch.float32))
    # The CPU poses as the accelerator, and a disk as the host: accelerate brings the blocks of the one to the other as it would.
    posing = {0: "cpu", HOST: "disk"}
    laid = {name: posing[device] for name, device in dispatch.device_map(placement).items()}
    assert set(laid.values()) == {"cpu", "disk"}
    over = auto.from_pretrained(tmp_path / "model", device_map=laid, offload_folder=tmp_path / "disk").eval()
    assert {parameter.device.type for parameter in over.parameters()} == {"cpu", "meta"}
    ids = torch.randint(3, 100, (2, 9))
    with torch.inference_mode():
        assert torch.equal(over(input_ids=ids).logits, whole(input_ids=ids).logits)


@pytest.mark.parametrize(("auto", "config"), [MODELS[0], MODELS[2], MODELS[4]], ids=["llama", "bert", "bart"])
def test_where_accelerate_finds_room_on_the_devices_so_does_this(auto: Any, config: Any) -> None:
    model = dispatch.skeleton(auto, config, torch.float32)
    found, total = dispatch.blocks(model), size_of(model)
    both = neither = 0
    for percent in range(30, 110, 4):
        memory = {0: total * percent // 100, 1: total * percent // 100}
        theirs = infer_auto_device_map(model, max_memory={**memory, "cpu": 10**9}, no_split_module_classes=list(model._no_split_modules))
        try:
            choose(found, {f"cuda:{number}": size for number, size in memory.items()})
        except DeviceOom:
            neither += 1
            assert "cpu" in theirs.values(), percent
        else:
            both += "cpu" not in theirs.values()
    assert both >= 5
    assert neither >= 3


class Device:
    """What torch says of a kind of accelerator: bytes that are free and that there are, of two."""

    def __init__(self) -> None:
        self.current = 0
        self.emptied = False

    def device_count(self) -> int:
        return 2

    def mem_get_info(self, number: int) -> tuple[int, int]:
        assert self.emptied
        return [(80 * 10**9, 85 * 10**9), (40 * 10**9, 85 * 10**9)][number]

    def empty_cache(self) -> None:
        self.emptied = True

    def set_device(self, number: int) -> None:
        self.current = number


def test_a_tenth_of_what_is_free_is_left_to_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_device_module", {"cuda": Device()}.__getitem__)
    assert dispatch.memory("cuda") == {"cuda:0": 72 * 10**9, "cuda:1": 36 * 10**9}


def test_a_whole_model_is_loaded_as_ever_onto_the_device_that_has_room(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device()
    monkeypatch.setattr(torch, "get_device_module", {"cuda": device}.__getitem__)
    assert dispatch.options(Placement({"cuda:1": (WHOLE,)}, "")) == {}
    assert device.current == 1
    parted = Placement({"cuda:0": ("embed",), "cuda:1": ("layers", "head"), HOST: ("rest",)}, "")
    assert dispatch.options(parted) == {"device_map": {"embed": 0, "layers": 1, "head": 1, "rest": HOST}}


def test_infer_answers_with_a_parted_model_as_with_a_whole_one(room: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    yard = Yard.open(tmp_path / "yard")
    texts = "".join(json.dumps({"text": f"{word} film"}) + "\n" for word in WORDS)
    inputs = {
        "model": artifact(yard, "model", tiny_model(tmp_path / "m", ["bad", "good"])),
        "data": artifact(yard, "dataset", {"test.jsonl": texts}),
    }
    room["cuda:0"] = 100 * 1024
    place, options, posing = dispatch.place, dispatch.options, {0: "cpu", HOST: "disk"}

    def posed(placement: Placement) -> dict[str, Any]:
        laid = {name: posing[device] for name, device in options(placement)["device_map"].items()}
        return {"device_map": laid, "offload_folder": tmp_path / "disk"}

    def on_cuda(context: Any, decide: Any) -> Any:
        return place(asked(cpu_offload=True), decide)

    told = []
    for parted in (False, True):
        context = FakeContext(Infer(model="m", data="d", max_length=16, cpu_offload=True), inputs, yard, tmp_path / "work", key=str(int(parted)) * 64)
        if parted:
            monkeypatch.setattr(dispatch, "options", posed)
            monkeypatch.setattr(dispatch, "place", on_cuda)
        infer.run(context)
        assert ("placement" in context.decisions) == parted
        told.append("".join(path.read_text() for path in (context.out / "data").iterdir()))
    assert told[0] == told[1]
    assert told[0].count("\n") == len(WORDS)


def test_the_hosts_memory_is_less_than_the_machines() -> None:
    total = next(int(line.split()[1]) * 1024 for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    assert parse_bytes("64Mi") < dispatch.host_memory() < total
