"""Eight pods on two nodes fetch one large model at the same moment: the hub sends it once."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

from tests.cluster.harness.local import LocalCluster
from tests.cluster.site import fill, site

SIZE = 300 << 20
PODS = 8
PIPELINE = """
name: reader-{number}
steps:
  base: {{fetch: {{model: modelscope://o/large}}}}
"""


def write_model(folder: Path, size: int) -> None:
    """One safetensors file of that many random bytes, which nothing makes smaller on the way."""
    folder.mkdir(parents=True)
    header = json.dumps({"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        for _ in range(size >> 20):
            file.write(os.urandom(1 << 20))


def test_eight_pods_read_a_model_once(local_cluster: LocalCluster, tmp_path: Path) -> None:
    write_model(tmp_path / "hub" / "o" / "large", SIZE)
    with site(local_cluster, tmp_path, targets=("light",)) as made:
        fill(made.hub, tmp_path / "hub")
        manifests = ""
        for number in range(PODS):
            text = made.write(f"{number}.yaml", PIPELINE.format(number=number))
            manifests += "---\n" + made.modelyard("render", text, "--driver", "here").stdout
        made.kubectl("apply", "-f", "-", stdin=manifests)

        def ended() -> list[dict[str, Any]]:
            jobs = made.jobs()
            over = [job for job in jobs if any(one["type"] in ("Complete", "Failed") for one in job["status"].get("conditions", []))]
            return over if len(over) == PODS else []

        jobs = made.cluster.wait("all eight have ended", ended, within=300)
        assert [job["status"].get("succeeded") for job in jobs] == [1] * PODS
        pods = made.cluster.items("pods", namespace=made.namespace, selector="modelyard.dev/role=step")
        assert {pod["spec"]["nodeName"] for pod in pods} == {"node1", "node2"}
        messages = [json.loads(pod["status"]["containerStatuses"][0]["state"]["terminated"]["message"]) for pod in pods]
        assert len({message["artifact"] for message in messages}) == 1
        sent = sum(int(line.split()[3]) for line in made.kubectl("logs", "hub").splitlines() if line.startswith("GET "))
        assert SIZE <= sent <= 1.01 * SIZE
