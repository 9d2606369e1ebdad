"""Posts the documents in a file by the official client and nothing else: what submitting costs at least. Arguments: file, namespace."""

import json
import sys
from pathlib import Path

from kubernetes import client, config

config.load_kube_config()
documents, namespace = json.loads(Path(sys.argv[1]).read_text()), sys.argv[2]
for document in documents:
    if document["kind"] == "ConfigMap":
        client.CoreV1Api().create_namespaced_config_map(namespace, document)
    else:
        client.BatchV1Api().create_namespaced_job(namespace, document)
