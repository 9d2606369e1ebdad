"""Service accounts as who they are: by their token alone, as a pod has it, and without the rights of who made the cluster."""

from __future__ import annotations

from pathlib import Path

import yaml

from tests.cluster.harness.cluster import Cluster


def as_account(cluster: Cluster, namespace: str, account: str, file: Path) -> Cluster:
    """The cluster as that account sees it; its kubeconfig is written into the file."""
    told = yaml.safe_load(cluster.kubeconfig.read_text())
    context = {"cluster": told["clusters"][0]["name"], "user": account, "namespace": namespace}
    user = {"name": account, "user": {"token": cluster.kubectl("-n", namespace, "create", "token", account).strip()}}
    known = {"apiVersion": "v1", "kind": "Config", "clusters": told["clusters"][:1], "users": [user], "current-context": "it"}
    file.write_text(yaml.safe_dump({**known, "contexts": [{"name": "it", "context": context}]}))
    return Cluster(file)
