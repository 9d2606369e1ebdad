"""What a Cluster does, whichever it is: run against the one in memory and against a real API server.

Fixtures that a tier gives: `client`, the Cluster; `eventually`, which waits for what a controller does later; `speaks`, which makes a pod that
says lines and ends.
"""

from __future__ import annotations

from collections.abc import Callable

from modelyard.kube.cluster import Answer, Cluster, Manifest

Eventually = Callable[[Callable[[], object]], None]
Speaks = Callable[[str, list[str]], None]


def config(name: str, **labels: str) -> Manifest:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": labels}, "data": {"a": "1", "b": "2"}}


def test_created_once(client: Cluster) -> None:
    made = client.create(config("one", kind="x"))
    assert made
    assert made["metadata"]["uid"]
    assert made["metadata"]["namespace"] == client.namespace
    assert client.create(config("one")) is None
    found = client.get("ConfigMap", "one")
    assert found
    assert (found["kind"], found["apiVersion"], found["data"]) == ("ConfigMap", "v1", {"a": "1", "b": "2"})
    assert found["metadata"]["uid"] == made["metadata"]["uid"]
    assert found["metadata"]["labels"] == {"kind": "x"}


def test_what_is_not_there(client: Cluster) -> None:
    assert client.get("ConfigMap", "none") is None
    assert client.patch("ConfigMap", "none", {"data": {"a": "2"}}) is None
    assert not client.delete("ConfigMap", "none")
    assert client.list("Job", {"no": "such"}) == []
    assert list(client.logs("none")) == []
    assert list(client.logs("none", follow=True)) == []


def test_listed_by_all_labels_and_fields(client: Cluster) -> None:
    for name, labels in {"one": {"x": "1", "y": "1"}, "two": {"x": "1", "y": "2"}, "three": {"x": "2"}}.items():
        assert client.create(config(name, **labels))
    assert {found["metadata"]["name"] for found in client.list("ConfigMap", {"x": "1"})} == {"one", "two"}
    assert [found["metadata"]["name"] for found in client.list("ConfigMap", {"x": "1", "y": "2"})] == ["two"]
    (found,) = client.list("ConfigMap", {"x": "1"}, fields={"metadata.name": "one"})
    assert (found["kind"], found["apiVersion"], found["data"]["a"]) == ("ConfigMap", "v1", "1")


def test_merged(client: Cluster) -> None:
    client.create(config("one", x="1"))
    found = client.patch("ConfigMap", "one", {"data": {"a": None, "c": "3"}, "metadata": {"labels": {"y": "2"}}})
    assert found
    assert found["data"] == {"b": "2", "c": "3"}
    assert found["metadata"]["labels"] == {"x": "1", "y": "2"}
    assert client.get("ConfigMap", "one") == found


def test_deleted_only_when_it_is_that_one(client: Cluster) -> None:
    made = client.create(config("one"))
    assert made
    assert not client.delete("ConfigMap", "one", uid="00000000-0000-0000-0000-000000000000")
    assert client.get("ConfigMap", "one")
    assert client.delete("ConfigMap", "one", uid=made["metadata"]["uid"])
    assert client.get("ConfigMap", "one") is None


def test_what_is_owned_goes_too(client: Cluster, eventually: Eventually) -> None:
    _owner_and_owned(client)
    assert client.delete("ConfigMap", "owner")
    assert client.get("ConfigMap", "owner") is None
    eventually(lambda: client.get("ConfigMap", "owned") is None)


def test_in_the_foreground_it_stays_until_what_it_owns_is_gone(client: Cluster, eventually: Eventually) -> None:
    _owner_and_owned(client, finalizers=["modelyard.dev/held"])
    assert client.delete("ConfigMap", "owner", wait_for_pods=True)
    eventually(lambda: (client.get("ConfigMap", "owned") or config(""))["metadata"].get("deletionTimestamp"))
    found = client.get("ConfigMap", "owner")
    assert found
    assert found["metadata"]["deletionTimestamp"]
    assert client.create(config("owner")) is None
    client.patch("ConfigMap", "owned", {"metadata": {"finalizers": None}})
    eventually(lambda: client.get("ConfigMap", "owner") is None and client.get("ConfigMap", "owned") is None)


def test_a_dry_run_makes_nothing(client: Cluster) -> None:
    assert client.dry_run(config("one")) == Answer((), ())
    assert client.get("ConfigMap", "one") is None
    client.create(config("one"))
    assert client.dry_run(config("one")) == Answer((), ())


def test_a_pods_lines(client: Cluster, speaks: Speaks) -> None:
    speaks("pod", ["one", "two  spaces", "", "ünï"])
    lines = list(client.logs("pod"))
    assert [line.split(b" ", 1)[1].decode() for line in lines] == ["one", "two  spaces", "", "ünï"]
    assert list(client.logs("pod", follow=True)) == lines
    assert list(client.logs("pod", tail=2)) == lines[2:]
    since = lines[1].split(b" ")[0].decode()
    again = list(client.logs("pod", since=since))
    assert again == lines[len(lines) - len(again) :]
    assert lines[1] in again
    assert all(line.split(b" ")[0][:19] >= since.encode()[:19] for line in again)


def _owner_and_owned(client: Cluster, **metadata: object) -> None:
    owner = client.create(config("owner"))
    assert owner
    owned = config("owned")
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"], "blockOwnerDeletion": True}
    owned["metadata"] |= {"ownerReferences": [reference], **metadata}
    assert client.create(owned)
