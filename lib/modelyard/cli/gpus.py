"""`modelyard gpus`: what accelerators a cluster has, and what is free."""

from __future__ import annotations

from modelyard.cli.session import Session, command


@command("gpus", examples=["modelyard gpus", "modelyard gpus -o json", "modelyard gpus -o name"])
def gpus(session: Session) -> None:
    """List the accelerators of a cluster: how many, in use, free, and of no use now with the reason.

    They are counted by vendor, resource and model; the model is what `gpu_model` takes. BLOCK is the most that one step can have now: free ones on
    one node. Needs the right to list nodes; without that to list the pods of all namespaces, what is in use is unknown.
    """
    from modelyard.cli import remote
    from modelyard.run.capacity import look

    stocks, unseen = look(remote.cluster(session))
    items = []
    for stock in stocks:
        unusable = "; ".join(f"{one.count} on {one.node}: {one.why}" for one in stock.unusable)
        items.append({**stock.described(), "_unusable": unusable, "_name": stock.name})
    columns = {
        "VENDOR": "vendor",
        "MODEL": "model",
        "RESOURCE": "resource",
        "NODES": "nodes",
        "ALLOCATABLE": "allocatable",
        "USED": "used",
        "FREE": "free",
        "BLOCK": "block",
        "UNUSABLE": "_unusable",
    }
    session.out.listing("Accelerator", items, columns, name="_name")
    if not items:
        session.out.note("no node of the cluster has an accelerator of a vendor that is known")
    if unseen:
        session.out.note(f"what is in use is unknown: {unseen}")
