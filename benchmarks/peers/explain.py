"""Makes the calls that `modelyard explain` makes of a run whose driver fits on no node, by the official client. Arguments: namespace, run."""

import sys

from kubernetes import client, config

config.load_kube_config()
core, batch = client.CoreV1Api(), client.BatchV1Api()
namespace, run = sys.argv[1:]
labels = f"modelyard.dev/run={run}"
jobs = batch.list_namespaced_job(namespace, label_selector=labels)
try:
    core.read_namespaced_config_map(f"{run}-status", namespace)
except client.ApiException as error:
    if error.status != 404:
        raise
pods = core.list_namespaced_pod(namespace, label_selector=labels)
events = core.list_namespaced_event(namespace, field_selector="type=Warning")
claim = core.read_namespaced_persistent_volume_claim("modelyard", namespace)
nodes = core.list_node()
everywhere = core.list_pod_for_all_namespaces()
said = [condition.message for pod in pods.items for condition in pod.status.conditions or [] if condition.type == "PodScheduled"]
print(jobs.items[0].metadata.name, len(events.items), claim.status.phase, len(nodes.items), len(everywhere.items), *said)
