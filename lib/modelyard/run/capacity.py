"""What a cluster's nodes have, as far as who asks may see it."""

from __future__ import annotations

from modelyard.errors import NoPermission
from modelyard.kube import access, room
from modelyard.kube.capacity import Stock, stocks
from modelyard.kube.cluster import Cluster

GRANT = (
    f"have an admin grant it: kubectl create clusterrole {access.NODES} --verb=get,list --resource=nodes,pods"
    f" && kubectl create clusterrolebinding {access.NODES} --clusterrole={access.NODES} --user=YOUR-NAME; the chart does it with nodeReader: true"
)


def look(cluster: Cluster) -> tuple[list[Stock], str]:
    """The accelerators, and why it is not known what is in use of them; empty where it is.

    Raises NoPermission, with the ClusterRole that would allow it, where nodes may not be listed.
    """
    try:
        nodes = cluster.list("Node")
    except NoPermission as failure:
        raise NoPermission("capacity unknown: may not list nodes", where=failure.where, why=failure.why, remedy=GRANT) from failure
    try:
        pods = cluster.list("Pod", everywhere=True)
    except NoPermission as failure:
        return stocks(room.spaces(nodes, None)), f"{failure.what} of all namespaces; {GRANT}"
    return stocks(room.spaces(nodes, pods)), ""
