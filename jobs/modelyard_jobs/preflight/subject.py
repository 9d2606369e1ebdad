"""What preflight looks at: the pipeline of its run, what that asks for, and what of it is in the yard already. Reads, and writes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

from modelyard import keys, refs
from modelyard.document import Document
from modelyard.errors import Failure
from modelyard.hubs import Listing
from modelyard.hubs.selection import Selection, fetch_key, role_of, select
from modelyard.refs import HubRef
from modelyard.spec import Pipeline, from_document
from modelyard.steps import Fetch, Preflight, Resources, Reuse, Step
from modelyard.yard import Action, Artifact, Yard
from modelyard_jobs.context import Context

WEIGHTS = frozenset({"SAFETENSORS", "ONNX", "PICKLE"})


@dataclass(frozen=True)
class Subject:
    """The pipeline of a run, here and now.

    resolved: step -> what its ref stands for, as the run's spec has it. forced: steps to do again. threads: what a step may keep busy.
    """

    pipeline: Pipeline
    settings: Preflight
    resolved: Mapping[str, Any]
    forced: frozenset[str]
    hubs: Mapping[str, str]
    yard: Yard
    threads: int

    @classmethod
    def of(cls, context: Context) -> Subject:
        """The subject of a preflight step."""
        spec = context.yard.runs.get(context.run).spec()
        pipeline = from_document(Document("spec.json", spec["pipeline"], {}))
        forced = frozenset(spec["settings"].get("force", ()))
        return cls(pipeline, context.settings, spec["resolved"], forced, context.hubs, context.yard, context.threads)

    @property
    def alone(self) -> bool:
        """Whether nothing computes in the pipeline: then everything is looked at for its own sake, and little is needed."""
        return not self.working

    @cached_property
    def working(self) -> dict[str, Step]:
        """The steps that compute."""
        return {name: step for name, step in self.pipeline.steps.items() if step.reuse is Reuse.PURE}

    @cached_property
    def resources(self) -> dict[str, Resources]:
        """What each step that computes asks of the machine; where none does, what preflight itself was given to look for."""
        names = self.working or [name for name, step in self.pipeline.steps.items() if step.computes()]
        return {name: self.pipeline.resources_of(name) for name in names}

    @cached_property
    def fetches(self) -> dict[str, Fetch]:
        """The fetch steps."""
        return {name: step for name, step in self.pipeline.steps.items() if isinstance(step, Fetch)}

    def listing(self, name: str) -> Listing | None:
        """What a fetch step's ref resolved to; None where it is an artifact of the yard already."""
        record = self.resolved.get(name, {}).get("listing")
        return Listing.from_record(record) if record else None

    @cached_property
    def selections(self) -> dict[str, Selection | Failure]:
        """Fetch step -> what it would take of its listing, or why that would be refused; not for what is an artifact of the yard already."""
        found: dict[str, Selection | Failure] = {}
        for name, step in self.fetches.items():
            try:
                if listing := self.listing(name):
                    found[name] = select(listing, step.trust)
            except Failure as failure:
                found[name] = failure
        return found

    def selection(self, name: str) -> Selection | None:
        """What a fetch step would take; None where it takes nothing, or would be refused."""
        found = self.selections.get(name)
        return found if isinstance(found, Selection) else None

    def made(self, name: str) -> str | None:
        """Digest of the artifact that the step would find in the yard instead of making it."""
        step = self.pipeline.steps[name]
        if isinstance(step, Fetch):
            if artifact := self.resolved.get(name, {}).get("artifact"):
                return str(artifact)
            selection = self.selection(name)
            found = [fetch_key(selection)] if selection else []
        else:
            inputs = {field: self.made(source) for field, source in self.pipeline.inputs(name).items()}
            if step.reuse is not Reuse.PURE or not all(inputs.values()):
                return None
            asked = self.pipeline.resources_of(name)
            devices = [asked.accelerator if asked.gpus else "cpu", *(["cpu"] if asked.fallback else [])]
            found = [keys.action_key(step, cast(dict[str, str], inputs), device, self._versions) for device in devices]
        actions = [] if name in self.forced else [action for key in found if (action := self._action(key))]
        return actions[0].artifact if actions else None

    def weights(self, name: str) -> int | None:
        """Bytes of the weights of the model that a step makes, or would make; None where nothing here says it."""
        step = self.pipeline.steps[name]
        if artifact := self._artifact(self.made(name)):
            return sum(entry.size for entry in artifact.files if role_of(entry.path).name in WEIGHTS)
        if isinstance(step, Fetch):
            selection = self.selection(name)
            return sum(file.size for file in selection.files if role_of(file.path).name in WEIGHTS) if selection else None
        source = self.pipeline.inputs(name).get("model")
        return self.weights(source) if source and step.makes() == "model" else None

    def hub_ref(self, name: str) -> HubRef | None:
        """The ref of a fetch step, where it is a hub's."""
        ref = refs.parse(self.fetches[name].ref)
        return ref if isinstance(ref, HubRef) else None

    @cached_property
    def missing(self) -> dict[str, Selection]:
        """Fetch step -> what it has to read, for those whose artifact is not in the yard."""
        return {name: selection for name in self.fetches if (selection := self.selection(name)) and not self.made(name)}

    @cached_property
    def _versions(self) -> dict[str, str]:
        return keys.installed_versions()

    def _action(self, key: str) -> Action | None:
        """The action of a key whose artifact is there. Not `Yard.known`, which keeps the action young: looking is no use."""
        action = self.yard.actions.get(key)
        return action if action and self._artifact(action.artifact) else None

    def _artifact(self, digest: str | None) -> Artifact | None:
        return self.yard.artifacts.find(digest) if digest else None
