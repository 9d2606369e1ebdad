"""Software: Python, the packages that the pipeline's steps need, torch, and the provider that ONNX Runtime really uses."""

from __future__ import annotations

import platform
from collections.abc import Iterator

from modelyard import keys
from modelyard.errors import NoAccelerator, Usage
from modelyard.locked import PINNED
from modelyard.steps import Evaluate, Export, Finetune, Step
from modelyard_jobs.preflight.ask import NoAnswer, ask
from modelyard_jobs.preflight.devices import Accelerators
from modelyard_jobs.preflight.row import Row
from modelyard_jobs.preflight.subject import Subject

INSTALL = "pip install 'modelyard[jobs]'"

_ROWS = frozenset({"datasets", "numpy", "pillow", "pyarrow", "tokenizers"})
_TORCH = _ROWS | {"accelerate", "torch", "transformers", "safetensors"}
_ONNX = _ROWS | {"onnxruntime"}
_EXPORT = _TORCH | _ONNX | {"onnx", "onnxscript"}
_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_SHOWN = 300
"""Letters of what a library wrote to stderr."""


def python(_: Subject) -> Iterator[Row]:
    """The interpreter."""
    yield Row("python", platform.python_version(), "3.11 or newer", platform.platform())


def packages(subject: Subject) -> Iterator[Row]:
    """The packages whose version shows in results, against the locked versions."""
    installed, needed = keys.installed_versions(), _needed(subject)
    absent = {name for name, version in installed.items() if version == "absent"}
    other = {name: version for name, version in installed.items() if name not in absent and version.partition("+")[0] != PINNED[name]}
    found, wanted = f"{len(installed) - len(absent)} of {len(installed)} installed", f"{len(needed) or 'none'} by the steps of this pipeline"
    if absent:
        by = sorted({step for name in absent for step in needed.get(name, [])})
        reason = f"{', '.join(sorted(absent))} {'is' if len(absent) == 1 else 'are'} not installed" + (f"; needed by {', '.join(by)}" if by else "")
        yield Row.bad("packages", Usage, soft=not by, found=found, needed=wanted, reason=reason, remedy=INSTALL)
    elif other:
        reason = "not the locked versions: " + ", ".join(f"{name} {version} (locked {PINNED[name]})" for name, version in sorted(other.items()))
        remedy = "none is needed: results are kept under the versions that are installed, apart from those of the locked ones"
        yield Row.bad("packages", Usage, soft=True, found=found, needed=wanted, reason=reason, remedy=remedy)
    else:
        yield Row("packages", found, wanted, "the locked versions")


def torch(subject: Subject, accelerators: Accelerators) -> Iterator[Row]:
    """Whether torch is there and can be imported."""
    locked, by = PINNED["torch"], _needed(subject).get("torch", [])
    needed = f"{locked} for {', '.join(by)}" if by else "by no step of this pipeline"
    if keys.installed_versions()["torch"] == "absent":
        yield Row.bad("torch", Usage, soft=not by, found="not installed", needed=needed, reason="finetune and export need it", remedy=INSTALL)
    elif isinstance(said := accelerators.torch, NoAnswer):
        reason, remedy = f"torch cannot be imported: {said}", f"install it again: {INSTALL}"
        yield Row.bad("torch", Usage, soft=not by, found=keys.installed_versions()["torch"], needed=needed, reason=reason, remedy=remedy)
    else:
        built = f"built for CUDA {said['cuda']}" if said["cuda"] else "built for the CPU alone"
        same = said["version"].partition("+")[0] == locked
        yield Row("torch", said["version"], needed, built if same else f"{built}; the locked version is {locked}")


def onnxruntime(subject: Subject, accelerators: Accelerators) -> Iterator[Row]:
    """The provider that a session really has: one that is listed may fall back to the CPU without an error.

    Known as such: https://github.com/microsoft/onnxruntime/issues/5337 and /13414.
    """
    by = _needed(subject).get("onnxruntime", [])
    on_device = [name for name in by if name in accelerators.asking and not isinstance(subject.pipeline.steps[name], Export)]
    if not accelerators.usable[0]:  # who falls back to the CPU wants its provider
        on_device = [name for name in on_device if name in accelerators.strict]
    alone = subject.alone and bool(accelerators.usable[0] or accelerators.strict)
    wanted = [_CUDA, _CPU] if on_device or (alone and accelerators.asking) else [_CPU]
    needed = (f"{wanted[0]} for {', '.join(on_device or by)}") if by else "by no step of this pipeline"
    version = keys.installed_versions()["onnxruntime"].replace("absent", "not installed")
    try:
        said, stderr = ask("onnxruntime", *wanted)
    except NoAnswer as silent:
        reason = f"a session cannot be made: {silent}"
        yield Row.bad("onnxruntime", Usage, soft=not by, found=version, needed=needed, reason=reason, remedy=INSTALL)
        return
    used, found = said["used"], f"{said['version']}, a session runs on {', '.join(said['used'])}"
    if wanted[0] in used and said["works"]:
        yield Row("onnxruntime", found, needed, "a session was made and run, and asked for its providers")
        return
    if wanted[0] in said["available"]:
        reason = f"{wanted[0]} is listed as available, yet a session that asked for it does not have it"
        remedy = "install the CUDA and cuDNN libraries that this build of onnxruntime needs"
    else:
        reason = f"this build has no {wanted[0]}; it has {', '.join(said['available'])}"
        remedy = "install onnxruntime-gpu in place of onnxruntime; the two are one module"
    reason += f": {told}" if (told := _error(stderr)) else ""
    hard = [name for name in on_device if name in accelerators.strict]
    yield Row.bad("onnxruntime", NoAccelerator, soft=not hard, found=found, needed=needed, reason=reason, remedy=remedy)


def _needed(subject: Subject) -> dict[str, list[str]]:
    """Package -> the steps that need it."""
    needed: dict[str, list[str]] = {}
    for name, step in subject.working.items():
        for package in _packages(subject, name, step):
            needed.setdefault(package, []).append(name)
    return needed


def _packages(subject: Subject, name: str, step: Step) -> frozenset[str]:
    if isinstance(step, Export):
        return _EXPORT
    engine, inputs = getattr(step, "engine", "torch"), subject.pipeline.inputs(name)
    engines = [_engine(subject, inputs[field]) for field in ("model", "against") if field in inputs] if engine == "auto" else [engine]
    also = {"peft"} if isinstance(step, Finetune) and step.method == "lora" else {"faster-coco-eval"} if _measures_boxes(step) else set()
    return frozenset[str](also).union(*(_TORCH if engine == "torch" else _ONNX for engine in engines))


def _measures_boxes(step: Step) -> bool:
    return isinstance(step, Evaluate | Finetune) and step.task == "object-detection"


def _engine(subject: Subject, source: str) -> str:
    """What runs the model that a step makes."""
    made = subject.made(source)
    artifact = subject.yard.artifacts.find(made) if made else None
    onnx = isinstance(subject.pipeline.steps[source], Export) or (artifact is not None and artifact.format == "onnx")
    return "onnx" if onnx else "torch"


def _error(stderr: str) -> str:
    """The last line of a library's stderr that speaks of an error; empty where none does."""
    told = next((line for line in reversed(stderr.splitlines()) if "error" in line.lower() or "fail" in line.lower()), "")
    return told if len(told) <= _SHOWN else f"…{told[-_SHOWN:]}"
