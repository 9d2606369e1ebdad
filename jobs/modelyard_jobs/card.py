"""The model card: README.md with the front matter that both hubs read, made from what the yard recorded. Pure: facts in, text out.

The same facts give the same bytes: there is no date in it. What is not known is said to be unknown, or left out. Everything that came from outside
(labels, refs, names of columns) is shown as code, so that it cannot be markup.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from modelyard.refs import HubRef
from modelyard.steps import Finetune
from modelyard_jobs.provenance import Licence, Provenance, Source
from modelyard_jobs.usage import how_to

LICENCES = frozenset(
    {
        "afl-3.0", "agpl-3.0", "apache-2.0", "bigscience-bloom-rail-1.0", "bigscience-openrail-m", "bsd-2-clause", "bsd-3-clause", "cc-by-3.0",
        "cc-by-4.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-4.0", "cc-by-nd-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0",
        "cc0-1.0", "cdla-permissive-2.0", "creativeml-openrail-m", "eupl-1.2", "gemma", "gpl-2.0", "gpl-3.0", "isc", "lgpl-2.1", "lgpl-3.0",
        "llama2", "llama3", "llama3.1", "llama3.2", "llama3.3", "mit", "mpl-2.0", "odbl", "openrail", "other", "unknown", "unlicense", "wtfpl",
    }
)  # fmt: skip
"""Words that both hubs take as `license`; what is not among them goes under `license_name`, which takes any.

Hugging Face refuses a card with a word that is not on its list (https://huggingface.co/docs/hub/repositories-licenses), of which this is a part.
"""

MODELSCOPE_TASKS = {"object-detection": "image-object-detection"}
"""ModelScope's words for tasks, where they are not Hugging Face's."""

_CLASSES = 20
_LABELS = 20


@dataclass(frozen=True)
class Measured:
    """What a metrics artifact says. document: metrics.json; data: the rows; model: what was measured; engine: what ran it, where that is known."""

    digest: str
    document: Mapping[str, Any]
    data: Source | None
    model: str | None
    engine: str | None = None


@dataclass(frozen=True)
class Facts:
    """All that a card says.

    licence: what it is published under; gate: as the step's result has it; paths: of the files beside the card; chats: it has a chat template.
    """

    to: HubRef
    version: str
    task: str | None
    labels: Sequence[str]
    provenance: Provenance
    licence: Licence
    paths: Sequence[str]
    measured: Measured | None = None
    gate: Mapping[str, Any] | None = None
    chats: bool = False


def readme(facts: Facts) -> str:
    """The whole README.md."""
    front = yaml.safe_dump(front_matter(facts), sort_keys=False, allow_unicode=True, width=150)
    parts = [
        f"# {facts.to.name}",
        _summary(facts),
        *_use(facts),
        *_worth(facts),
        *_data(facts),
        *_training(facts),
        *_export(facts),
        *_lineage(facts),
        *_licence(facts),
        *_limits(facts),
        f"---\nMade by modelyard {facts.version} from the records of its steps.",
    ]
    return f"---\n{front}---\n\n" + "\n\n".join(part for part in parts if part) + "\n"


def front_matter(facts: Facts) -> dict[str, Any]:
    """What hubs read: Hugging Face's names, and ModelScope's `frameworks` and `tasks` beside them."""
    traced, name = facts.provenance, facts.licence.name
    front: dict[str, Any] = {}
    if name in LICENCES:
        front["license"] = name
    elif name:
        front |= {"license": "other", "license_name": name}
    if traced.languages:
        front["language"] = list(traced.languages)
    front["library_name"] = "transformers"
    if facts.task:
        front |= {"pipeline_tag": facts.task, "tasks": [MODELSCOPE_TASKS.get(facts.task, facts.task)]}
    front["frameworks"] = ["pytorch"]
    if traced.base and traced.base.repository:
        front |= {"base_model": traced.base.repository, "base_model_relation": "finetune"}
    if traced.data and traced.data.repository:
        front["datasets"] = [traced.data.repository]
    front["tags"] = ["modelyard", *(["onnx"] if traced.export else [])]
    if facts.measured:
        metrics = [
            {"type": _type(metric), "name": metric, "value": round(found["value"], 6)} for metric, found in facts.measured.document["metrics"].items()
        ]
        source = facts.measured.data
        known = source and (source.repository or source.ref)
        dataset = {"type": (source and source.repository) or "unknown", "name": known or "unknown", "split": facts.measured.document["split"]}
        task = {"type": facts.task or "other"}
        front["metrics"] = list(dict.fromkeys(metric["type"] for metric in metrics))
        front["model-index"] = [{"name": facts.to.name, "results": [{"task": task, "dataset": dataset, "metrics": metrics}]}]
    return front


def _summary(facts: Facts) -> str:
    traced, measured = facts.provenance, facts.measured
    what, before = _WHAT.get(facts.task or "", ("A model", "of"))
    shown = ", ".join(_code(label) for label in facts.labels[:_LABELS])
    labels = f" {before} {len(facts.labels)} labels: {shown}{', …' if len(facts.labels) > _LABELS else ''}" if facts.labels else ""
    made = f"finetuned from {_named(traced.base)}" if traced.base else f"as it came from {_named(traced.origin)}"
    made += f" on {_named(traced.data)}" if traced.data else ""
    main = measured.document.get("main", "accuracy") if measured else ""
    metric = measured.document["metrics"].get(main) if measured else None
    worth = f" Its {main.replace('_', ' ')} is {_figure(metric['value'])} ({_between(metric)}), measured on {metric['n']} rows." if metric else ""
    onnx = " The ONNX files under `onnx/` were exported from these weights, and compared with them." if traced.export else ""
    return f"{what}{labels}; {made}.{worth}{onnx}"


def _use(facts: Facts) -> list[str]:
    training = facts.provenance.training
    longest = training.settings.get("max_length") if training else None
    return ["## How to use it", *how_to(facts.to, facts.task, facts.paths, longest, chats=facts.chats)]


def _worth(facts: Facts) -> list[str]:
    measured = facts.measured
    if measured is None:
        return ["## What it is worth", "It was published without metrics: nothing is known of how good it is."]
    document = measured.document
    rows = document["rows"]
    sample = f", a sample with seed {rows['seed']}" if rows.get("seed") is not None else ""
    exported = facts.provenance.export is not None and measured.model == facts.provenance.model.digest
    by = f" {'The export' if exported else 'The weights'} of this repository {'was' if exported else 'were'} measured"
    by += f", run by {_code(measured.engine)}." if measured.engine else "."
    parts = [
        "## What it is worth",
        f"On the split {_code(document['split'])} of {_named(measured.data)}: {rows['evaluated']} of {rows['split']} rows{sample}."
        f" Intervals are 95 %: Wilson's for proportions, else a bootstrap by rows.{by}",
        _table(
            ["metric", "value", "95 % interval", "n", "interval by"],
            [[_code(name), _figure(m["value"]), _between(m), str(m["n"]), m.get("interval", "")] for name, m in document["metrics"].items()],
        ),
    ]
    if baseline := document.get("baseline"):
        parts.append(f"Always answering {_code(baseline['label'])} would reach an accuracy of {_figure(baseline['accuracy']['value'])}.")
    if classes := document.get("classes", [])[:_CLASSES]:
        shown = [name for name in _PER_CLASS if name in classes[0]]
        count = next(name for name in _COUNTED if name in classes[0])
        rows_of = [[_code(c["label"]), str(c[count]), *(f"{_figure(c[m]['value'])} ({_between(c[m])})" for m in shown)] for c in classes]
        parts.append(_table(["label", _COUNTED[count] if facts.task != "token-classification" else "spans", *shown], rows_of))
    if (cut := document.get("truncated")) and cut["rows"]:
        parts.append(f"{cut['rows']} of the rows ({cut['share']:.1%}) were cut at {cut['max_length']} tokens.")
    if facts.gate:
        asked = "; ".join(_line(line) for line in facts.gate["lines"])
        parts.append(f"It was published through a gate: {asked}.")
    return parts


def _line(line: Mapping[str, Any]) -> str:
    end = "the lower end of the interval of " if line["sure"] else ""
    less = " less that of the model before it" if line.get("difference") else ""
    return f"{end}{_code(line['metric'])}{less} at least {line['at_least']:g}"


def _data(facts: Facts) -> list[str]:
    traced, measured = facts.provenance, facts.measured
    rows = []
    if traced.data:
        counts = traced.training.details.get("rows", {}) if traced.training else {}
        used = f"{counts['train']} of {counts['split']} rows of train; {counts['validation']} to choose the epoch by" if counts else "train"
        rows.append(["training", _named(traced.data), used, _short(traced.data.digest)])
    if measured and measured.data:
        document = measured.document
        rows.append(
            ["measuring", _named(measured.data), f"{document['rows']['evaluated']} rows of {document['split']}", _short(measured.data.digest)]
        )
    if not rows:
        return []
    parts = ["## Data", _table(["for", "data set", "rows", "digest"], rows)]
    if measured:
        overlap = measured.document.get("overlap")
        if overlap is None:
            parts.append(
                f"Whether {_things(facts)} that it was measured on also stand in the training rows is not known: there is no train split beside them."
            )
        else:
            both = f"**{overlap['rows']} ({overlap['share']:.1%})**" if overlap["rows"] else "none"
            parts.append(f"Of the {_things(facts)} that it was measured on, {both} also stand in the split `train`.")
    return parts


def _training(facts: Facts) -> list[str]:
    action = facts.provenance.training
    if action is None:
        return []
    hidden = {*Finetune.inputs, *Finetune.neutral}
    settings = [[_code(name), _code(value)] for name, value in action.settings.items() if name not in hidden and value is not None]
    facts_of = action.decisions
    told = [f"{label} {_code(facts_of[name].value)}" for name, label in _DECIDED.items() if name in facts_of]
    versions = ", ".join(f"{name} {version}" for name, version in sorted(action.versions.items()) if version != "absent")
    how = f"On {_code(action.device)}" + (f": {'; '.join(told)}" if told else "") + "." + (f" With {versions}." if versions else "")
    return ["## How it was trained", _table(["setting", "value"], settings), how]


def _export(facts: Facts) -> list[str]:
    action = facts.provenance.export
    if action is None:
        return []
    parts = ["## The ONNX export"]
    if parity := action.details.get("parity"):
        equal = f"and {parity['agreement']:.2%} of the {_many(parity['unit'])} are equal"
        equal += f"; {parity['close']} are as good as tied, and only there one may differ." if parity["close"] else "."
        if not parity["answers"]:
            equal = f"and neither gave a {parity['unit']} that could be compared."
        parts.append(
            f"Compared with these weights in torch on {parity['rows']} rows of the split {_code(action.settings.get('split'))}:"
            f" the {parity['output']} differ by {parity['max_abs']:.1e} at most"
            f" (tolerated are {parity['tolerance']:.1e}; the largest is {parity['scale']:.3g}),"
            f" {equal}"
        )
    if int8 := action.details.get("int8"):
        kept = "8-bit weights are in `onnx/model_int8.onnx`" if int8["kept"] else "8-bit weights were tried and refused"
        parts.append(f"{kept}: {int8['why']}.")
        if scores := int8.get("scores"):
            rows = [[_code(name), _figure(m["value"]), _between(m), str(m["n"])] for name, m in scores.items()]
            rows.append(["int8 less onnx, paired", f"{int8['difference']['value']:+.4f}", _between(int8["difference"]), str(int8["difference"]["n"])])
            parts.append(_table([f"{int8['metric'].replace('_', ' ')} of", "value", "95 % interval", "n"], rows))
    return parts


def _lineage(facts: Facts) -> list[str]:
    traced, measured = facts.provenance, facts.measured
    rows = [["weights", _code(traced.weights.digest), _traced(traced.origin, "finetune" if traced.training else "")]]
    if traced.export:
        rows.append(["export", _code(traced.model.digest), "export, of the weights"])
    if traced.base:
        rows.append(["base model", _code(traced.base.digest), _traced(traced.base)])
    if traced.data:
        rows.append(["training data", _code(traced.data.digest), _traced(traced.data)])
    if measured:
        rows.append(["metrics", _code(measured.digest), "evaluate"])
        if measured.data and measured.data != traced.data:
            rows.append(["measuring data", _code(measured.data.digest), _traced(measured.data)])
    text = "A digest stands for the content of all files of an artifact. The hub lists the files of this repository with their own sha256."
    return ["## Lineage", _table(["what", "digest", "from"], rows), text]


def _licence(facts: Facts) -> list[str]:
    own, told = facts.provenance.licence, facts.licence
    of = "base model" if facts.provenance.base else "model"
    known = f"The {of}'s licence, as its {_code(own.source)} says, is {_code(own.name)}." if own.name else _UNKNOWN.format(of=of)
    if told.name and told != own:
        return ["## Licence", f"{_code(told.name)}, as whoever published it says. {known}"]
    return ["## Licence", known]


def _limits(facts: Facts) -> list[str]:
    rows, things = facts.measured.document["rows"]["evaluated"] if facts.measured else 0, _things(facts)
    figures = f"The figures above are of {rows} rows of one data set" if rows else "Nothing was measured"
    kind = "kind" if things == "images" else "kind, length or language"
    return [
        "## Intended use and limits",
        f"Meant for {things} like those that it was trained on. {figures};"
        f" on {things} of another {kind} expect it to be worse, and measure before you rely on it.",
        "Its probabilities were not calibrated, and what the base model and the data are biased towards, it is too: "
        "do not let it alone decide about people.",
    ]


def _many(unit: str) -> str:
    return f"{unit}{'es' if unit == 'box' else 's'}"


def _things(facts: Facts) -> str:
    return "images" if facts.task in ("image-classification", "object-detection") else "texts"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _named(source: Source | None) -> str:
    """A source for people: repository and hub, else its ref, else its digest."""
    if source is None:
        return "data that are not known any more"
    hub = _HUBS[source.ref.partition("://")[0]] if source.ref and source.repository else ""
    about = ", ".join(filter(None, [hub, f"commit {_code(source.revision[:12])}" if source.revision else ""]))
    return (_code(source.repository or source.ref) if source.ref else _short(source.digest)) + (f" ({about})" if about else "")


def _traced(source: Source, otherwise: str = "") -> str:
    """A source for machines: the ref as it was written, and the commit."""
    revision = f" at {_code(source.revision)}" if source.revision else ""
    return _code(source.ref) + revision if source.ref else otherwise


def _short(digest: str) -> str:
    return f"`{digest[:12]}…`"


def _code(value: Any) -> str:
    """The value as inline code that cannot end early, break a table or span lines."""
    text = " ".join(str(value).split()).encode("utf-8", "replace").decode().translate(_UNSAFE)
    return f"`{text[:200]}`" if text else "` `"


def _figure(value: float) -> str:
    return f"{value:.4f}"


def _between(metric: Mapping[str, Any]) -> str:
    return f"{_figure(metric['low'])} to {_figure(metric['high'])}"


def _type(metric: str) -> str:
    """The hubs' word for a metric such as `f1_macro`: without how it was averaged."""
    return _AVERAGED.sub("", metric)


_AVERAGED = re.compile(r"_(macro|weighted|top5)$")
_UNSAFE = str.maketrans({"`": "'", "|": "¦"})
"""What would end code, or a table's cell: a bar cannot be escaped in all texts, since a backslash before it would escape the escape."""
_HUBS = {"modelscope": "ModelScope", "hf": "Hugging Face"}
_PER_CLASS = ("precision", "recall", "f1", "ap", "ap50")
_COUNTED = {"support": "rows", "boxes": "boxes"}
_WHAT = {
    "text-classification": ("Classifies texts", "as one of"),
    "token-classification": ("Labels the words of texts", "by one of"),
    "fill-mask": ("Says which words a gap in a text may have", ""),
    "text-generation": ("Goes on with texts", ""),
    "image-classification": ("Classifies images", "as one of"),
    "object-detection": ("Finds objects in images", "of"),
}
"""Task -> what its model does, and what goes before the number of its labels."""
_DECIDED = {"dtype": "computed in", "best_epoch": "epoch kept", "steps": "optimizer steps"}
_UNKNOWN = (
    "The {of}'s licence is not known: nothing that came with it says one. This card grants nothing; ask whoever made it before you use or share it."
)
