"""Kubernetes: manifests (pure), the one door to an API server, and what is read from it.

names      what objects are called, and the labels and annotations by which they are found again
place      where on a cluster a run has its pods and its yard
render     step Jobs, driver Jobs, claims and reader pods as plain dicts; no cluster, no client
cluster    what the rest of the package asks of an API server
client     does it, late and alone; http: requests that end well or say why not; channels: a command in a container
runs       runs as their driver Jobs and ConfigMaps tell them; logs: the lines of their pods, each once
"""
