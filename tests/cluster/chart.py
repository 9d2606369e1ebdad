"""The chart as it stands in the tree, by the real Helm; and kubeconform with the schemas of the cluster that the tests have."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from modelyard.kube.cluster import Manifest
from tests.cluster.harness.binaries import program
from tests.cluster.harness.cluster import Cluster
from tests.cluster.harness.state import cache

CHART = Path(__file__).resolve().parents[2] / "charts" / "modelyard"
SERVED = ("api/v1", "apis/apps/v1", "apis/batch/v1", "apis/networking.k8s.io/v1", "apis/rbac.authorization.k8s.io/v1")
"""Where the API server describes the kinds that a chart has."""


class Helm:
    """Helm. kubeconfig: of the cluster that it installs into; rendering needs none."""

    def __init__(self, kubeconfig: Path | None = None) -> None:
        self.program = shutil.which("helm") or str(program("helm"))
        self.kubeconfig = kubeconfig

    def run(self, *words: str, values: Mapping[str, Any] | None = None, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        """One command, held to its exit code (None: any). values: told by stdin."""
        homes = {f"HELM_{kind}_HOME": str(cache() / "helm" / kind.lower()) for kind in ("CACHE", "CONFIG", "DATA")}
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("HELM_", "KUBE"))} | homes
        environ |= {"KUBECONFIG": str(self.kubeconfig)} if self.kubeconfig else {"KUBECONFIG": os.devnull}
        command = [self.program, *words, *(["--values=-"] if values is not None else [])]
        done = subprocess.run(
            command,
            input=None if values is None else yaml.safe_dump(dict(values)),
            env=environ,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert code is None or done.returncode == code, f"helm {' '.join(words)}: exit {done.returncode}\n{(done.stdout + done.stderr)[-4000:]}"
        return done

    def template(self, values: Mapping[str, Any] | None = None, *words: str, namespace: str = "research") -> list[Manifest]:
        """What would be installed."""
        text = self.run("template", "yard", str(CHART), "-n", namespace, *words, values=values or {}).stdout
        return [document for document in yaml.safe_load_all(text) if document]


def of_kind(manifests: Sequence[Manifest], *kinds: str) -> list[Manifest]:
    """Those of some kinds, in their order."""
    return [manifest for manifest in manifests if manifest["kind"] in kinds]


def write_schemas(cluster: Cluster, folder: Path) -> str:
    """Write what the API server says of its kinds as JSON schemas that refuse unknown fields; where they are, as kubeconform is told it."""
    for path in SERVED:
        schemas = json.loads(cluster.kubectl("get", "--raw", f"/openapi/v3/{path}"))["components"]["schemas"]
        definitions = {name: _strict(schema) for name, schema in schemas.items()}
        for name, schema in schemas.items():
            kinds = schema.get("x-kubernetes-group-version-kind", [])
            if len(kinds) == 1 and "metadata" in schema.get("properties", {}):
                (kind,) = kinds
                group = [kind["group"].partition(".")[0]] if kind["group"] else []
                file = folder / ("-".join([kind["kind"].lower(), *group, kind["version"]]) + ".json")
                file.write_text(json.dumps({"$ref": f"#/definitions/{name}", "definitions": definitions}))
    return f"{folder}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json"


def conform(text: str, schemas: str) -> subprocess.CompletedProcess[str]:
    """kubeconform's verdict over a stream of manifests."""
    command = [shutil.which("kubeconform") or str(program("kubeconform")), "-strict", "-summary", "-schema-location", schemas]
    return subprocess.run(command, input=text, capture_output=True, text=True, timeout=120, check=False)


def _strict(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: _strict(value) for name, value in schema.items() if not (name == "default" and isinstance(value, dict))}
    if isinstance(reference := made.get("$ref"), str):
        made["$ref"] = reference.replace("#/components/schemas/", "#/definitions/")
    if isinstance(made.get("properties"), dict) and made.get("type") == "object":
        made.setdefault("additionalProperties", False)
    return made
