"""preflight's parts: rows and their order, what the vendor's tool says, room, hubs, gates. What needs torch or a socket is in tests/steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from modelyard import document, hubs, keys, spec
from modelyard.devices import Probe
from modelyard.errors import REGISTRY, Failure, HostOom, NoAccelerator, NoPermission, NoSpace, Unavailable, Usage, VolumeFailed, Yielded
from modelyard.hubs import Access, HubFile, Listing
from modelyard.hubs.selection import fetch_key, select
from modelyard.refs import HUB_NAMES, HubRef
from modelyard.steps import MEASURED, Preflight
from modelyard.yard import Action, Yard
from modelyard.yard.runs import RunStatus
from modelyard_jobs import preflight
from modelyard_jobs.cgroup import Cgroup
from modelyard_jobs.metrics import classification
from modelyard_jobs.preflight import devices, gates, room, software
from modelyard_jobs.preflight import hubs as hub_rows
from modelyard_jobs.preflight.ask import NoAnswer
from modelyard_jobs.preflight.devices import Accelerators, Device, Smi
from modelyard_jobs.preflight.row import Row, Verdict, first_failed, worst
from modelyard_jobs.preflight.subject import Subject
from tests.steps.fake import FakeContext, artifact

REPOSITORY = HubRef("modelscope", "model", "o", "base")
REVIEWS = HubRef("modelscope", "dataset", "o", "reviews")
MODEL = Listing(REPOSITORY, "model", "main", (HubFile("model.safetensors", 10 << 20, "a" * 64, "1"), HubFile("config.json", 100, "b" * 64, "1")))
DATA = Listing(REVIEWS, "dataset", "main", (HubFile("train.csv", 1 << 20, "c" * 64, "1"),))

PIPELINE = """
name: reviews
resources: {RESOURCES}
steps:
  look: {preflight: {}}
  base: {fetch: {model: modelscope://o/base}}
  rows: {fetch: {dataset: modelscope://datasets/o/reviews}}
  tuned: {finetune: {model: base, data: rows}}
  score: {evaluate: {model: tuned, data: rows, rows: 2000}}
  onnx: {export: {model: tuned, parity: rows, int8: true}}
  out: {publish: {model: onnx, to: modelscope://me/reviews, gate: {metrics: score, at_least: {accuracy: 0.8}}}}
"""

INFER = """
name: said
resources: {RESOURCES}
steps:
  look: {preflight: {}}
  said: {infer: {model: modelscope://o/base, data: ./x.csv, engine: onnx}}
"""


class Shelf:
    """A hub: who it takes us for, and whether files may be read."""

    def __init__(self, access: Access | Failure = Access("me", writes=True), read: Failure | None = None) -> None:  # noqa: B008
        self.who, self.refuses = access, read
        self.asked: list[tuple[str, int]] = []

    def access(self) -> Access:
        if isinstance(self.who, Failure):
            raise self.who
        return self.who

    def read(self, listing: Listing, file: HubFile, offset: int = 0) -> Iterator[bytes]:
        self.asked.append((file.path, offset))
        if self.refuses:
            raise self.refuses
        yield b"x"


Make = Callable[..., Subject]


@pytest.fixture
def shelves(monkeypatch: pytest.MonkeyPatch) -> dict[str, Shelf]:
    shelves = {"modelscope": Shelf(), "huggingface": Shelf(Access(None))}
    monkeypatch.setattr(hubs, "open_hub", lambda scheme, addresses: shelves[HUB_NAMES[scheme]])
    return shelves


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def make(text: str = PIPELINE, resources: str = "", resolved: Mapping[str, Any] | None = None, **settings: Any) -> Subject:
        pipeline = spec.from_document(document.parse(text.replace("RESOURCES", resources), "f.yaml"))
        default = {"base": {"ref": str(REPOSITORY), "listing": MODEL.record()}, "rows": {"ref": str(REVIEWS), "listing": DATA.record()}}
        return Subject(
            pipeline=pipeline,
            settings=Preflight(**settings),
            resolved=default if resolved is None else resolved,
            forced=frozenset(),
            hubs={"modelscope": "https://scope.example", "huggingface": "https://face.example"},
            yard=Yard.open(tmp_path / "yard"),
            threads=1,
        )

    return make


def one(rows: Iterator[Row]) -> Row:
    (row,) = rows
    return row


def keep(subject: Subject, listing: Listing) -> str:
    """Have what a listing names in the yard."""
    made = artifact(subject.yard, listing.kind, {file.path: "x" * 10 for file in listing.files})
    key = fetch_key(select(listing))
    subject.yard.actions.put(key, Action(key=key, verb="fetch", artifact=made.digest))
    return made.digest


# --- rows


def test_the_worst_row_is_the_verdict_and_the_order_of_classes_names_the_failure() -> None:
    rows = [Row("a", "1"), Row.bad("b", Usage, soft=True), Row.bad("c", Usage, soft=False), Row.bad("d", NoSpace, soft=False)]
    assert (worst([]), worst(rows[:1]), worst(rows[:2]), worst(rows)) == (Verdict.OK, Verdict.OK, Verdict.WARNING, Verdict.FAILED)
    assert first_failed(rows[:2]) is None
    assert first_failed(rows) is rows[3], "a disk takes longer to mend than a setting"
    assert first_failed([*rows, Row.bad("e", NoAccelerator, soft=False)]).check == "e"  # type: ignore[union-attr]
    assert set(rows[3].record()) == {"check", "verdict", "found", "needed", "reason", "remedy"}


def test_a_failed_rows_failure_says_all_that_the_row_does() -> None:
    failure = Row.bad("disk", NoSpace, soft=False, found="1 GiB free", needed="2 GiB", reason="1 GiB is missing", remedy="make room").error()
    assert isinstance(failure, NoSpace)
    assert (failure.what, failure.why, failure.remedy) == ("disk: 1 GiB free; needed: 2 GiB", "1 GiB is missing", "make room")


@pytest.mark.parametrize("kind", [kind for kind in REGISTRY.values() if kind is not Yielded])
def test_what_cannot_be_looked_at_is_a_row_whatever_its_class(kind: type[Failure]) -> None:
    row = Row.of("x", kind("it is so", where="there", why="because", remedy="do"))
    assert (row.verdict, row.failure, row.found, row.reason, row.remedy) == (Verdict.FAILED, kind, "it is so", "there: because", "do")
    assert first_failed([row]) is row


# --- devices


def test_what_nvidia_smi_says() -> None:
    said = devices.parse_smi("0, NVIDIA H200, 580.65.06, 143771, 143000\n\n1, NVIDIA H200, 580.65.06, 143771, 7\n")
    assert (said.driver, said.problem) == ("580.65.06", "")
    assert said.devices[1] == Device(1, "NVIDIA H200", 143771 << 20, 7 << 20)
    assert str(said.devices[0]) == "0: NVIDIA H200, 140 GiB, 140 GiB free"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "No devices were found\n",
        "0, NVIDIA H200, 580.65.06, [N/A], [N/A]\n",
        "0, NVIDIA H200\n",
        "<html>502</html>",
        "\x00\x1b[31m,,,,",
        '"0, unclosed',
        "0, NVIDIA H200, 580.65.06, 143771, 143000\nUnable to determine the device handle for GPU1\n",
    ],
)
def test_what_cannot_be_read_of_nvidia_smi_is_said(text: str) -> None:
    said = devices.parse_smi(text)
    assert said.problem
    assert len(said.devices) == text.count("143000")


def test_nvidia_smi_that_fails_or_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    tool = tmp_path / "smi"
    tool.write_text('#!/bin/sh\necho "Failed to initialize NVML: Driver/library version mismatch"\nexit 18\n')
    tool.chmod(0o755)
    assert devices.read_smi(("smi",)).problem == "nvidia-smi ended with 18: Failed to initialize NVML: Driver/library version mismatch"
    assert devices.read_smi(("no-such-tool",)).problem == "there is no nvidia-smi"


def test_the_kernels_word_for_the_driver(tmp_path: Path) -> None:
    file = tmp_path / "version"
    assert devices.kernel_module(file) == ""
    file.write_text("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  (x)\nGCC version: gcc 12.3.0\n")
    assert devices.kernel_module(file) == "580.65.06"
    file.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.129.03  Thu Oct 19\n")
    assert devices.kernel_module(file) == "535.129.03"
    file.write_text("\x00rubbish")
    assert devices.kernel_module(file) == ""


Here = Callable[..., Accelerators]


@pytest.fixture
def here(make: Make, monkeypatch: pytest.MonkeyPatch) -> Here:
    """Accelerators of a pipeline with these resources, on a machine with these devices."""

    def here(resources: str, nodes: int = 0, torch: Any = None, smi: Smi = Smi(problem="no smi"), cuda: Any = None) -> Accelerators:  # noqa: B008
        found = Accelerators(make(resources=resources))
        monkeypatch.setattr(devices, "driver_cuda", lambda: cuda)
        monkeypatch.setattr(devices, "kernel_module", lambda: "")
        found.__dict__ |= {
            "seen": Probe(nodes, "the nodes"),
            "torch": torch or {"version": "2", "cuda": "13.2", "devices": [], "error": ""},
            "smi": smi,
        }
        return found

    return here


def torch_with(*free: int, works: bool = True, cuda: str | None = "13.2", error: str = "") -> dict[str, Any]:
    found = [{"name": "H200", "total": 1 << 37, "free": size, "works": works} for size in free]
    return {"version": "2.15.0", "cuda": cuda, "devices": found, "error": error}


def test_devices_that_are_there(here: Here) -> None:
    row = one(devices.devices(here("gpus: 1", 2, torch_with(1 << 36, 1 << 35))))
    assert (row.verdict, row.found) == (Verdict.OK, "0: H200, 128 GiB, 64 GiB free; 1: H200, 128 GiB, 32 GiB free")
    assert row.needed == "1 nvidia for tuned, score"


@pytest.mark.parametrize(
    ("nodes", "torch", "why"),
    [
        (0, None, "the nodes"),
        (1, torch_with(error="The NVIDIA driver on your system is too old"), "too old"),
        (1, NoAnswer("SIGSEGV: without a word"), "SIGSEGV"),
        (1, torch_with(1, works=False), "a wrong sum"),
    ],
)
def test_a_device_that_is_not_usable(here: Here, nodes: int, torch: Any, why: str) -> None:
    row = one(devices.devices(here("gpus: 1", nodes, torch)))
    assert (row.verdict, row.failure, row.found) == (Verdict.FAILED, NoAccelerator, "none")
    assert why in row.reason
    assert "fallback: cpu" in row.remedy
    row = one(devices.devices(here("gpus: 1, fallback: cpu", nodes, torch)))
    assert (row.verdict, row.failure) == (Verdict.WARNING, None)
    assert "will run on the CPU" in row.reason


def test_the_steps_that_compute_decide_whether_the_cpu_will_do(make: Make) -> None:
    text = PIPELINE.replace(
        "  tuned: {finetune: {model: base, data: rows}}", "  tuned: {finetune: {model: base, data: rows}, resources: {gpus: 1, fallback: cpu}}"
    )
    assert Accelerators(make(text)).strict == []
    assert Accelerators(make(text, "gpus: 1")).strict == ["score"]
    assert Accelerators(make("name: a\nresources: {gpus: 1}\nsteps: {look: {preflight: {}}}")).strict == ["look"]


def test_fewer_devices_than_asked_for(here: Here) -> None:
    row = one(devices.devices(here("gpus: 2", 2, torch_with(1))))
    assert row.failure is NoAccelerator
    assert "1 of 2 are usable" in row.reason


def test_without_a_wish_for_a_device_none_is_needed(here: Here) -> None:
    assert one(devices.devices(here(""))).verdict is Verdict.OK
    assert list(devices.driver(here(""))) == []


@pytest.mark.parametrize(
    ("cuda", "built", "verdict"),
    [
        ((13, 0), "13.2", Verdict.OK),
        ((14, 0), "13.2", Verdict.OK),
        ((12, 9), "13.2", Verdict.FAILED),
        ((12, 0), "12.6", Verdict.OK),
        ((12, 0), None, Verdict.OK),
    ],
)
def test_the_drivers_cuda_against_torchs(here: Here, cuda: tuple[int, int], built: str | None, verdict: Verdict) -> None:
    row = one(devices.driver(here("gpus: 1", 1, torch_with(1, cuda=built), Smi("580.65.06", (Device(0, "H200", 1, 1),)), cuda)))
    assert row.verdict is verdict
    assert row.found == f"580.65.06, for CUDA {cuda[0]}.{cuda[1]}"


def test_a_driver_that_cannot_be_asked(here: Here) -> None:
    row = one(devices.driver(here("gpus: 1", 1)))
    assert (row.failure, row.found, row.reason) == (NoAccelerator, "none", "no smi")
    row = one(devices.driver(here("gpus: 1", 1, smi=devices.parse_smi("0, H200"), cuda=(13, 0))))
    assert (row.verdict, row.found) == (Verdict.WARNING, "of unknown version, for CUDA 13.0")
    assert "'0, H200'" in row.reason


# --- software


def test_packages_that_are_not_installed(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    versions = dict(keys.PINNED) | {"onnxscript": "absent", "onnx": "absent"}
    monkeypatch.setattr(keys, "installed_versions", lambda: versions)
    row = one(software.packages(make()))
    assert (row.verdict, row.failure, row.found) == (Verdict.FAILED, Usage, "13 of 15 installed")
    assert row.reason == "onnx, onnxscript are not installed; needed by onnx"
    assert row.remedy == "pip install 'modelyard[jobs]'"
    assert one(software.packages(make("name: a\nsteps: {look: {preflight: {}}}"))).verdict is Verdict.WARNING
    versions |= {"onnx": keys.PINNED["onnx"], "onnxscript": "9.9"}
    row = one(software.packages(make()))
    assert (row.verdict, row.reason) == (Verdict.WARNING, f"not the locked versions: onnxscript 9.9 (locked {keys.PINNED['onnxscript']})")
    versions |= {"onnxscript": keys.PINNED["onnxscript"], "torch": f"{keys.PINNED['torch']}+cu132"}
    assert one(software.packages(make())).verdict is Verdict.OK


def test_an_exported_model_needs_no_torch(make: Make, here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "installed_versions", lambda: dict(keys.PINNED) | {"torch": "absent"})
    text = "name: a\nsteps:\n  look: {preflight: {}}\n  said: {infer: {model: modelscope://o/base, data: ./x.csv, engine: onnx}}\n"
    assert one(software.torch(make(text), here(""))).verdict is Verdict.WARNING
    assert one(software.torch(make(text.replace("engine: onnx", "engine: auto")), here(""))).verdict is Verdict.FAILED
    subject = make(
        text.replace("engine: onnx", "engine: auto").replace("modelscope://o/base", "out") + "  out: {export: {model: ./m, parity: ./x.csv}}\n"
    )
    assert one(software.torch(subject, here(""))).needed.endswith("for out")


def test_an_export_that_is_compared_with_weights_needs_torch(make: Make, here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "installed_versions", lambda: dict(keys.PINNED) | {"torch": "absent"})
    text = PIPELINE.replace("{RESOURCES}", "{}").replace("score: {evaluate: {model: tuned", "score: {evaluate: {model: onnx")
    assert "score" not in one(software.torch(make(text), here(""))).needed
    assert "score" in one(software.torch(make(text.replace("model: onnx, data", "model: onnx, against: base, data")), here(""))).needed


def test_torch_that_cannot_be_imported(make: Make, here: Here) -> None:
    row = one(software.torch(make(), here("", torch=NoAnswer("exit 1: ImportError: libcudart.so.13"))))
    assert (row.failure, row.reason) == (Usage, "torch cannot be imported: exit 1: ImportError: libcudart.so.13")


STDERR = "2026-01-01 [E:onnxruntime] Failed to load library libonnxruntime_providers_cuda.so with error: libcublasLt.so.13\nbye"


@pytest.mark.parametrize(
    ("resources", "here", "available", "used", "verdict", "why"),
    [
        ("", False, ["CPU"], ["CPU"], Verdict.OK, "a session was made and run"),
        ("gpus: 1", True, ["CUDA", "CPU"], ["CUDA", "CPU"], Verdict.OK, "a session was made and run"),
        ("gpus: 1", True, ["CUDA", "CPU"], ["CPU"], Verdict.FAILED, "listed as available, yet"),
        ("gpus: 1, fallback: cpu", True, ["CUDA", "CPU"], ["CPU"], Verdict.WARNING, "libcublasLt.so.13"),
        ("gpus: 1, fallback: cpu", False, ["CUDA", "CPU"], ["CPU"], Verdict.OK, "a session was made and run"),
        ("gpus: 1", False, ["CPU"], ["CPU"], Verdict.FAILED, "this build has no CUDA"),
    ],
)
def test_the_provider_in_use_is_what_counts(
    make: Make, monkeypatch: pytest.MonkeyPatch, resources: str, here: bool, available: list[str], used: list[str], verdict: Verdict, why: str
) -> None:
    asked: list[str] = []

    def ask(*question: str) -> tuple[dict[str, Any], str]:
        asked.extend(question)
        names = {"version": "1.32", "available": [f"{name}ExecutionProvider" for name in available]}
        return {**names, "used": [f"{name}ExecutionProvider" for name in used], "works": True}, "" if "yet" in why else STDERR

    monkeypatch.setattr(software, "ask", ask)
    subject = make(INFER, resources)
    accelerators = Accelerators(subject)
    vars(accelerators)["usable"] = ([Device(0, "a card", 1 << 30, 1 << 30)] if here else [], "")
    row = one(software.onnxruntime(subject, accelerators))
    assert (row.verdict, row.failure) == (verdict, NoAccelerator if verdict is Verdict.FAILED else None)
    assert why in row.reason
    falls_back = "fallback" in resources and not here
    assert asked[1:] == (["CUDAExecutionProvider"] if resources and not falls_back else []) + ["CPUExecutionProvider"]


def test_onnx_runtime_that_crashes(make: Make, here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(*question: str) -> Any:
        raise NoAnswer("SIGSEGV: without a word")

    monkeypatch.setattr(software, "ask", ask)
    row = one(software.onnxruntime(make(), here("")))
    assert (row.failure, row.reason) == (Usage, "a session cannot be made: SIGSEGV: without a word")


# --- room


def group(tmp_path: Path, limit: str, used: str = "1073741824") -> Cgroup:
    root = tmp_path / "cgroup"
    root.mkdir()
    (root / "memory.max").write_text(limit)
    (root / "memory.current").write_text(used)
    return Cgroup(root)


def test_a_memory_limit_below_what_is_asked_for(make: Make, tmp_path: Path) -> None:
    limited = group(tmp_path, str(8 << 30))
    info = tmp_path / "meminfo"
    info.write_text("MemTotal: 67108864 kB\nMemAvailable: 1048576 kB\n")
    row = one(room.memory(make(resources="memory: 16Gi"), limited, info))
    assert (row.failure, row.found) == (HostOom, "a limit of 8 GiB, 1 GiB in use")
    assert "8 GiB more than there can ever be" in row.reason
    assert one(room.memory(make(resources="memory: 8Gi"), limited, info)).verdict is Verdict.OK
    assert one(room.memory(make(), limited, info)).needed == "not said"
    free = Cgroup(tmp_path / "nothing")
    assert one(room.memory(make(resources="memory: 8Gi"), free, info)).verdict is Verdict.WARNING, "others use it now"
    assert one(room.memory(make(resources="memory: 100Gi"), free, info)).failure is HostOom


def test_threads_and_shared_memory(make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(room, "usable_cpus", lambda group: (2, "the CPU quota is 2.5"))
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    row = one(room.threads(make(resources="cpu: 8")))
    assert (row.verdict, row.found, row.needed) == (Verdict.WARNING, "2 of the host's 64", "8 asked for")
    assert "would start 64 threads" in one(room.threads(make())).reason
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(total=64 << 20, free=0))
    assert one(room.shm(make(resources="gpus: 1"), tmp_path)).verdict is Verdict.OK
    row = one(room.shm(make(resources="gpus: 2"), tmp_path))
    assert (row.verdict, row.found) == (Verdict.WARNING, "64 MiB")


def test_the_space_that_is_needed_is_shown_with_its_terms(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    free = 1 << 40
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(total=1 << 40, free=free))
    subject = make()
    row = one(room.disk(subject))
    base, rows = (10 << 20) + 100, 1 << 20
    weights = 10 << 20
    assert row.verdict is Verdict.OK
    fetched = "modelscope://o/base 10 MiB + modelscope://datasets/o/reviews 1 MiB"
    assert row.reason == f"({fetched} + tuned's checkpoints 2 x 3 x 10 MiB = 60 MiB + tuned 10 MiB + onnx 12.5 MiB) x 1.3"
    assert row.needed == room.format_bytes(int((base + rows + 7 * weights + weights + weights // 4) * 1.3))
    free = 50 << 20
    row = one(room.disk(subject))
    assert (row.failure, row.found) == (NoSpace, "50 MiB free")
    assert "are missing: (modelscope://o/base" in row.reason
    free = 1 << 40
    assert one(room.disk(make(disk="2Ti"))).failure is NoSpace
    assert one(room.disk(make(disk="1Gi"))).reason == "the settings ask for 1Gi"


def test_what_is_in_the_yard_needs_no_space(make: Make) -> None:
    subject = make()
    model, data = keep(subject, MODEL), keep(subject, DATA)
    tuned = artifact(subject.yard, "model", {"model.safetensors": "t" * 1000})
    asked = subject.pipeline.resources_of("tuned")
    assert not asked.gpus
    key = keys.action_key(subject.pipeline.steps["tuned"], {"model": model, "data": data}, "cpu", keys.installed_versions())
    subject.yard.actions.put(key, Action(key=key, verb="finetune", artifact=tuned.digest))
    assert subject.made("tuned") == tuned.digest
    assert one(room.disk(subject)).reason == "(onnx 1.22 KiB) x 1.3"
    assert replace(subject, forced=frozenset({"tuned"})).made("tuned") is None
    assert "tuned's checkpoints" in one(room.disk(replace(subject, forced=frozenset({"tuned"})))).reason


def test_a_volume_that_cannot_hold_a_yard_fails_its_row(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = make()
    assert one(room.volume(subject)).verdict is Verdict.OK
    assert list((subject.yard.root / "staging").iterdir()) == [], "the probe leaves nothing"

    def refuse(staging: Path) -> None:
        raise VolumeFailed("the volume cannot hold a yard", why="a folder cannot be renamed in one step")

    monkeypatch.setattr(room, "probe", refuse)
    with pytest.raises(VolumeFailed):
        list(room.volume(subject))


# --- hubs


def by_check(subject: Subject) -> dict[str, Row]:
    return {row.check: row for row in hub_rows.rows(subject)}


def test_hubs_that_answer(make: Make, shelves: dict[str, Shelf]) -> None:
    rows = by_check(make())
    assert rows["hub modelscope"].found == "it answers, as me, who may write"
    assert rows["hub modelscope"].needed == "for base, rows, out"
    assert "hub huggingface" not in rows, "the pipeline does not name it"
    assert rows["ref modelscope://o/base"].found == "2 files, 10 MiB"
    assert {row.verdict for row in rows.values()} == {Verdict.OK}
    assert shelves["modelscope"].asked == [("config.json", 99), ("train.csv", (1 << 20) - 1)], "one byte of each ref"


def test_a_hub_that_does_not_answer_matters_where_it_is_needed(make: Make, shelves: dict[str, Shelf]) -> None:
    shelves["modelscope"].who = shelves["huggingface"].who = Unavailable("no connection", why="refused", remedy="look")
    rows = by_check(make())
    assert (rows["hub modelscope"].failure, rows["hub modelscope"].reason) == (Unavailable, "https://scope.example: refused")
    assert "token for out" not in rows, "the hub's own row says it"
    local = make(PIPELINE.replace("  out: ", "  # out: "))
    keep(local, MODEL)
    keep(local, DATA)
    rows = by_check(local)
    assert rows["hub modelscope"].verdict is Verdict.WARNING, "all that is needed is in the yard"
    assert rows["ref modelscope://o/base"].found.startswith("in the yard as ")


@pytest.mark.parametrize("text", ["steps: {look: {preflight: {}}}", "steps: {look: {preflight: {}}, seen: {search: {query: x}}}"])
def test_hubs_that_nothing_depends_on_fail_nothing(make: Make, shelves: dict[str, Shelf], text: str) -> None:
    shelves["modelscope"].who = Unavailable("no connection")
    shelves["huggingface"].who = Access(None)
    rows = by_check(make(f"name: x\n{text}"))
    assert {check: row.verdict for check, row in rows.items()} == {"hub huggingface": Verdict.OK, "hub modelscope": Verdict.WARNING}
    assert (rows["hub huggingface"].found, rows["hub huggingface"].needed) == ("it answers, to whoever asks", "by no step of this pipeline")


@pytest.mark.parametrize(
    ("access", "verdict", "found"),
    [
        (Access(None), Verdict.FAILED, "none"),
        (Access("me", writes=False), Verdict.FAILED, "me's may not write"),
        (Access("me", writes=None), Verdict.OK, "me's"),
        (Access("me", writes=True), Verdict.OK, "me's may write"),
        (Access(None, writes=True), Verdict.OK, "none is asked for"),
    ],
)
def test_publishing_needs_a_token_that_may_write(make: Make, shelves: dict[str, Shelf], access: Access, verdict: Verdict, found: str) -> None:
    shelves["modelscope"].who = access
    row = by_check(make())["token for out"]
    assert (row.verdict, row.found) == (verdict, found)
    assert row.failure is (NoPermission if verdict is Verdict.FAILED else None)


def test_a_gated_ref_is_found_out_before_the_fetch(make: Make, shelves: dict[str, Shelf]) -> None:
    shelves["modelscope"].refuses = NoPermission("the repository is gated", remedy="accept its terms")
    row = by_check(make())["ref modelscope://o/base"]
    assert (row.failure, row.found, row.remedy) == (NoPermission, "the repository is gated", "accept its terms")


def test_a_ref_that_would_be_refused(make: Make, shelves: dict[str, Shelf]) -> None:
    pickles = Listing(REPOSITORY, "model", "main", (HubFile("pytorch_model.bin", 5, None, "1"),))
    subject = make(resolved={"base": {"listing": pickles.record()}, "rows": {"listing": DATA.record()}})
    row = by_check(subject)["ref modelscope://o/base"]
    assert row.failure is not None
    assert row.failure.category == "refused"
    assert "trust" in row.remedy
    assert one(room.disk(subject)).reason == "(modelscope://datasets/o/reviews 1 MiB) x 1.3; of unknown size: tuned, onnx"


def test_offline_no_hub_is_asked(make: Make, shelves: dict[str, Shelf], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELYARD_OFFLINE", "1")
    shelves["modelscope"].who = RuntimeError("asked")  # type: ignore[assignment]
    rows = by_check(make())
    assert rows["hub modelscope"].verdict is Verdict.WARNING
    assert shelves["modelscope"].asked == []


# --- gates


def test_the_number_that_passes_is_said_before_anything_is_trained(make: Make) -> None:
    row = one(gates.rows(make()))
    assert (row.verdict, row.found, row.needed) == (Verdict.OK, "0.808 to be safe", "accuracy at least 0.8")
    assert "80% chance on 2000 rows" in row.reason
    sure = one(gates.rows(make(PIPELINE.replace("{accuracy: 0.8}", "{accuracy: 0.8}, sure: true"))))
    assert float(sure.found.split()[0]) > 0.82


@pytest.mark.parametrize(
    ("change", "found", "failure"),
    [
        (("accuracy: 0.8}", "accuracy: 1.0}, sure: true"), "out of reach", Usage),
        ((", rows: 2000", ""), "not known", None),
        (("accuracy: 0.8", "f1_macro: 0.8"), "0.808 to be safe", None),
    ],
)
def test_a_gate_that_cannot_pass_or_cannot_be_reckoned(make: Make, change: tuple[str, str], found: str, failure: type[Failure] | None) -> None:
    row = one(gates.rows(make(PIPELINE.replace(*change))))
    assert (row.found, row.failure) == (found, failure)


def test_a_gate_on_another_model_is_warned_of(make: Make) -> None:
    rows = list(gates.rows(make(PIPELINE.replace("evaluate: {model: tuned", "evaluate: {model: base"))))
    assert (rows[0].verdict, rows[0].found) == (Verdict.WARNING, "metrics of base")
    assert len(list(gates.rows(make(PIPELINE.replace("model: onnx", "model: tuned"))))) == 1


def test_a_comparison_with_the_champion_is_a_row_of_its_own(make: Make) -> None:
    text = PIPELINE.replace("{accuracy: 0.8}", "{accuracy: 0.8}, not_worse_than_champion: 0.01")
    text = text.replace("evaluate: {model: tuned", "evaluate: {model: tuned, against: base")
    floor, compared = gates.rows(make(text))
    assert (compared.verdict, compared.found) == (Verdict.OK, "0.014 either way")  # 1.96 * sqrt(0.1 / 2000)
    assert compared.needed == "accuracy at most 0.01 under the champion's"
    assert floor.needed == "accuracy at least 0.8"
    alone = one(gates.rows(make(text.replace("at_least: {accuracy: 0.8}, ", "").replace(", rows: 2000", ""))))
    assert (alone.verdict, alone.found) == (Verdict.OK, "not known")


@pytest.mark.parametrize(
    ("task", "found", "metric"),
    [
        ("", "0.014 either way", "the task's main metric"),
        ("text-classification", "0.014 either way", "accuracy"),
        ("object-detection", "not known", "map"),
        ("text-generation", "not known", "log_likelihood"),
    ],
)
def test_a_comparison_names_the_main_metric_of_the_task(make: Make, task: str, found: str, metric: str) -> None:
    text = PIPELINE.replace("at_least: {accuracy: 0.8}", "not_worse_than_champion: 0.01")
    row = one(gates.rows(make(text.replace("evaluate: {model: tuned", f"evaluate: {{model: tuned, against: base{task and f', task: {task}'}"))))
    assert (row.found, row.needed) == (found, f"{metric} at most 0.01 under the champion's")


def test_the_names_of_metrics_are_those_that_evaluate_measures() -> None:
    measured = classification.classification(np.array([[5, 1], [2, 4]]), ["a", "b"], 1)
    assert MEASURED["text-classification"] == (*measured.metrics, "accuracy_top5")


# --- the step


def begin(make: Make, tmp_path: Path, text: str) -> FakeContext:
    subject = make(text)
    subject.yard.runs.create("run-r1", {"pipeline": subject.pipeline.to_dict()}, RunStatus(run="run-r1", pipeline="x"))
    return FakeContext(Preflight(), {}, subject.yard, tmp_path)


def test_every_row_is_told_before_the_step_fails(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Iterator[Row]:
        yield Row("first", "here")
        raise NoSpace("full", remedy="make room")

    checks = {"a": broken, "b": lambda *_: iter([Row.bad("b", Usage, soft=False, found="wrong")]), "c": lambda *_: iter([Row("c", "fine")])}
    monkeypatch.setattr(preflight, "CHECKS", checks)
    context = begin(make, tmp_path, "name: x\nsteps: {look: {preflight: {}}}")
    with pytest.raises(NoSpace) as failed:
        preflight.run(context)
    result = next(message["value"] for message in context.said if message["type"] == "result")
    assert result["verdict"] == "failed"
    assert [(row["check"], row["verdict"]) for row in result["rows"]] == [("first", "ok"), ("a", "failed"), ("b", "failed"), ("c", "ok")]
    assert (failed.value.what, failed.value.why, failed.value.remedy) == ("a: full", "failed too: b", "make room")


@pytest.mark.parametrize("error", [KeyError("ours"), Yielded("asked to stop")])
def test_an_error_of_ours_and_a_stop_are_no_rows(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def broken(*_: Any) -> Iterator[Row]:
        raise error
        yield

    monkeypatch.setattr(preflight, "CHECKS", {"a": broken})
    with pytest.raises(type(error)):
        preflight.run(begin(make, tmp_path, "name: x\nsteps: {look: {preflight: {}}}"))
