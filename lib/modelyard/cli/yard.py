"""`modelyard yard`: create, put, get, ls, show, verify, gc, pin; over a claim through a reader pod."""

from __future__ import annotations

import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import click

from modelyard import refs
from modelyard.cli import remote
from modelyard.cli.options import duration
from modelyard.cli.output import short, table
from modelyard.cli.session import Remembering, Session, command
from modelyard.config import CLAIM
from modelyard.errors import Corrupt, Failure, NoInput, Usage
from modelyard.quantities import format_bytes
from modelyard.yard import Artifact, Yard, files

if TYPE_CHECKING:
    from modelyard.hubs import Listing
    from modelyard.hubs.packed import Open
    from modelyard.hubs.selection import Selection
    from modelyard.kube.cluster import Manifest

_NAME = "A digest, the beginning of one, or a name such as models/reviews@champion"
_ARTIFACT = click.argument("artifact", help=f"{_NAME}.")
_STREAM = "-"
_CHUNK = 1 << 20


@command(
    "create",
    examples=["modelyard yard create --on kubernetes", "modelyard yard create --on kubernetes -n research --size 1Ti --storage-class nfs"],
)
@click.option("--size", default="100Gi", show_default=True, metavar="AMOUNT", help="Space to ask for, such as 500Gi.")
@click.option("--storage-class", metavar="NAME", help="What makes the volume; default the cluster's own choice.")
@click.option(
    "--access-mode",
    default="ReadWriteMany",
    show_default=True,
    metavar="MODE",
    help="ReadWriteMany; or ReadWriteOnce, with which all pods of a yard share one node.",
)
def create(session: Session, size: str, storage_class: str | None, access_mode: str) -> None:
    """Make the claim that is the yard on a cluster.

    One that is there stays as it is. On this machine a yard is a folder, which the first run makes.
    """
    from modelyard.kube import claims
    from modelyard.run.settings import place_of

    if not session.config.remote:
        remedy = "modelyard run FILE makes it; for a claim on a cluster: modelyard yard create --on kubernetes"
        raise Usage("on this machine a yard is a folder that needs no making", where=session.config["yard"], remedy=remedy)
    access, cluster = claims.check_access(access_mode), remote.cluster(session)
    place = place_of(session.config, cluster.namespace).model_copy(update={"access": access})
    wanted = claims.manifest(place, size=size, storage_class=storage_class)
    made = cluster.create(wanted)
    claim = made or cluster.get("PersistentVolumeClaim", session.config["yard"]) or wanted
    access, has = claims.access_of(claim), claims.size_of(claim)
    value = {"claim": claim["metadata"]["name"], "namespace": cluster.namespace, "size": has, "accessMode": access, "created": bool(made)}
    text = f"claim {value['claim']} in namespace {cluster.namespace}, {has}, {access}" + ("" if made else ": it was there already")
    session.out.record("Yard", value, [text], name=value["claim"])
    if not made:
        _compare(session, claim, wanted)
    session.out.hint(
        "modelyard run FILE --on kubernetes" + f" -n {cluster.namespace}" + ("" if value["claim"] == CLAIM else f" --yard {value['claim']}")
    )


@command("ls", inside="read", examples=["modelyard yard ls", "modelyard yard ls -q", "modelyard yard ls -o json --on kubernetes"])
def ls(session: Session) -> None:
    """List the artifacts, with the names that point to them."""
    opened = session.yard()
    names, pinned = _names(opened), {pin.digest for pin in opened.pins.list()}
    items = []
    for artifact in opened.artifacts.list():
        own, kept = names.get(artifact.digest, []), artifact.digest in pinned
        shown = {"_digest": short(artifact.digest), "_size": format_bytes(artifact.size), "_names": ", ".join(own), "_pinned": "yes" if kept else ""}
        items.append({**_record(artifact), "names": own, "pinned": kept, **shown})
    columns = {"ARTIFACT": "_digest", "KIND": "kind", "FORMAT": "format", "SIZE": "_size", "PINNED": "_pinned", "NAMES": "_names"}
    session.out.listing("Artifact", items, columns, name="digest")


@command("show", inside="read", examples=["modelyard yard show 3f2a9c", "modelyard yard show models/reviews@champion -o json"])
@_ARTIFACT
def show(session: Session, artifact: str) -> None:
    """Show an artifact: its files, and what made it."""
    opened = session.yard()
    found = _find(opened, artifact)
    made = [action.model_dump(mode="json") for action in opened.actions.list() if action.artifact == found.digest]
    files = [asdict(entry) for entry in found.files]
    value = {**_record(found), "path": str(found.path), "names": _names(opened).get(found.digest, []), "files": files, "actions": made}
    session.out.record("Artifact", value, _text(value), name=found.digest)


@command("get", examples=["modelyard yard get models/reviews@champion ./model", "modelyard yard get 3f2a9c ./model --on kubernetes"])
@_ARTIFACT
@click.argument("folder", type=click.Path(), help="A new folder; `-` writes one stream to stdout, for `put`.")
def get(session: Session, artifact: str, folder: str) -> None:
    """Copy an artifact's files into a new folder.

    Each is checked by its hash on the way. The folder appears when all of them are there.
    """
    from modelyard.hubs.packed import Unpacker, into_folder

    if folder == _STREAM:
        _send(session, artifact, remote.stdout())
        return
    target = Path(folder).absolute()
    if target.exists():
        raise Usage("the folder is there already", where=folder, remedy="name a new one")
    part, meter, digests = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part"), remote.Meter(session.out.note, "copied"), list[str]()

    def begin(listing: Listing) -> Open:
        meter.total = listing.size
        digests.append(str(listing.ref))
        return into_folder(part)

    try:
        with files.failures(part):
            part.mkdir(parents=True)
        unpacker = Unpacker(begin, progress=meter.count)
        _send(session, artifact, cast(BinaryIO, unpacker))
        unpacker.finish()
        with files.failures(target):
            os.rename(part, target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    session.out.record("Copy", {"digest": digests[0], "path": folder}, [folder], name=folder)


@command(
    "put",
    examples=[
        "modelyard yard put ./reviews.csv datasets/reviews",
        "modelyard yard put ./model models/base@v1 --on kubernetes",
        "modelyard yard get models/base@v1 - > base.files",
        "modelyard yard put - models/base",
    ],
)
@click.argument("path", type=click.Path(), help="A file or a folder; `-` reads the stream that `get` writes.")
@click.argument("name", help="models/NAME[@ALIAS] or datasets/NAME[@ALIAS].")
def put(session: Session, path: str, name: str) -> None:
    """Bring a file or folder of this machine into the yard.

    Pickles and code stay outside, as with a fetch. What breaks off leaves nothing in the yard.
    """
    name = name.removeprefix("yard://")
    ref = refs.parse(f"yard://{name}") if name.startswith(("models/", "datasets/")) else None
    if not isinstance(ref, refs.YardRef):
        remedy = "write models/NAME or datasets/NAME, for what it is"
        raise Usage(f"{name!r} is no name in the yard", where="modelyard yard put", remedy=remedy)
    chosen = None if path == _STREAM else _chosen(path, ref)
    chunks = _stdin() if chosen is None else _outgoing(session, *chosen)
    if session.config.remote:
        _upload(session, chunks, ref)
    else:
        _take(session, chunks, ref)
    for left, why in chosen[1].left_out if chosen else ():
        session.out.note(f"left out {left}: {why}")


@command("verify", inside="read", examples=["modelyard yard verify", "modelyard yard verify models/reviews@champion"])
@click.argument("artifacts", nargs=-1, metavar="[ARTIFACT]...", help=f"{_NAME}; default all.")
def verify(session: Session, artifacts: tuple[str, ...]) -> None:
    """Hash artifacts again; exit 76 when one is not whole."""
    opened = session.yard()
    digests = [_digest(opened, artifact) for artifact in artifacts] or opened.artifacts.digests()
    found = {digest: opened.artifacts.verify(digest) for digest in digests}
    items = [{"digest": digest, "problems": problems, "_state": "; ".join(problems) or "whole"} for digest, problems in found.items()]
    session.out.listing("Verification", items, {"ARTIFACT": "digest", "STATE": "_state"}, name="digest")
    broken = [digest for digest, problems in found.items() if problems]
    if broken:
        remedy = "run the pipeline again with --force: the artifact is made again and replaces this one"
        raise Corrupt(f"{len(broken)} of {len(items)} artifacts are not whole", where=str(opened.root), why=", ".join(broken[:5]), remedy=remedy)


@command("gc", cls=Remembering, examples=["modelyard yard gc --dry-run", "modelyard yard gc --older-than 7d"])
@click.option("--older-than", type=duration, default="30d", help="Age from which a result is not young any more. [default: 30d]")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
def gc(session: Session, older_than: int, dry_run: bool) -> None:
    """Remove what nothing reaches any more.

    Kept is what a name, a pin, a live run or a young result reaches. The rest lies in the trash for a day before it is deleted. On a cluster what it
    tells of runs that ended so long ago goes too.
    """
    if session.config.remote:
        from modelyard.kube import runs

        remote.delegate(session, write=True)
        forgotten = runs.forget(remote.cluster(session), datetime.now(UTC) - timedelta(seconds=older_than), dry_run=dry_run)
        session.out.note(f"statuses of runs that ended before that{' would go' if dry_run else ' are gone'}: {len(forgotten)}")
        return
    done = session.yard(write=True).gc(older_than, dry_run=dry_run)
    counts = {key: len(value) if isinstance(value, list) else value for key, value in asdict(done).items()}
    text = [f"{name:<10}{format_bytes(count) if name == 'freed' else count}" for name, count in counts.items()]
    session.out.record("GarbageCollection", {**asdict(done), "dryRun": dry_run}, text, name="")


@command("pin", inside="write", examples=["modelyard yard pin", "modelyard yard pin 3f2a9c --why 'the paper'", "modelyard yard pin 3f2a9c --remove"])
@click.argument("artifact", required=False, help=f"{_NAME}.")
@click.option("--why", default="", help="A word for those who find it.")
@click.option("--remove", is_flag=True, help="Let go of it.")
def pin(session: Session, artifact: str | None, why: str, remove: bool) -> None:
    """Keep an artifact; without one, list the pins."""
    if (why or remove) and not artifact:
        raise Usage("which artifact?", where="modelyard yard pin", remedy="modelyard yard ls shows what there is")
    opened = session.yard(write=artifact is not None)
    if artifact and remove:
        opened.pins.remove(_digest(opened, artifact))
    elif artifact:
        opened.pins.add(_digest(opened, artifact), why)
    items = [{**entry.model_dump(mode="json"), "_digest": short(entry.digest)} for entry in opened.pins.list()]
    session.out.listing("Pin", items, {"ARTIFACT": "_digest", "WHY": "why", "AT": "at"}, name="digest")


yard = click.Group("yard", (create, put, get, ls, show, verify, gc, pin), help="Look after the yard: artifacts, names, pins, space.")


def _compare(session: Session, claim: Manifest, wanted: Manifest) -> None:
    """Say in what a claim that is there is not the one that was asked for."""
    from modelyard.kube import claims

    has, asked, name = claims.size_of(claim), claims.size_of(wanted), claim["metadata"]["name"]
    if claims.smaller(has, asked):
        patch = f'{{"spec": {{"resources": {{"requests": {{"storage": "{asked}"}}}}}}}}'
        session.out.note(f"it has {has}, not {asked}; where its storage class can grow: kubectl patch pvc {name} -p '{patch}'")
    for what, ours, its in (
        ("access mode", claims.access_of(wanted), claims.access_of(claim)),
        ("storage class", wanted["spec"].get("storageClassName", ""), claim["spec"].get("storageClassName", "")),
    ):
        if ours and ours != its:
            session.out.note(f"its {what} is {its or 'none'}, not {ours}; that cannot be changed: another yard has another name (--yard)")


def _send(session: Session, artifact: str, target: BinaryIO) -> None:
    """An artifact's files as a stream, from wherever the yard is."""
    from modelyard.hubs.packed import pack_artifact

    if session.config.remote:
        with remote.reader(session) as pod:
            pod.run(["yard", "get", "--", artifact, _STREAM], target)
        return
    target.writelines(pack_artifact(_find(session.yard(), artifact)))


def _chosen(path: str, ref: refs.YardRef) -> tuple[Listing, Selection]:
    from modelyard import hubs
    from modelyard.hubs.selection import select

    listing = hubs.resolve(refs.PathRef(str(Path(path).absolute())), ref.kind, {})
    return listing, select(listing)


def _outgoing(session: Session, listing: Listing, chosen: Selection) -> Iterator[bytes]:
    from modelyard import hubs
    from modelyard.hubs.packed import pack

    meter = remote.Meter(session.out.note, "copied", chosen.size)
    return remote.metered(pack(listing, chosen.files, hubs.reader(listing, {})), meter)


def _stdin() -> Iterator[bytes]:
    """What comes, as it comes: the other side may not be able to close it."""
    while chunk := os.read(sys.stdin.fileno(), _CHUNK):
        yield chunk


def _upload(session: Session, chunks: Iterator[bytes], ref: refs.YardRef) -> None:
    from modelyard.hubs.packed import stream

    with remote.reader(session, write=True) as pod:
        pod.run(["yard", "put", *session.out.options(), "--", _STREAM, str(ref)], remote.stdout(), stream(chunks))


def _take(session: Session, chunks: Iterator[bytes], ref: refs.YardRef) -> None:
    """Make what comes in a stream an artifact, and name it."""
    from modelyard.hubs.packed import Unpacker
    from modelyard.hubs.selection import select

    opened = session.yard(write=True)
    taken: list[tuple[Listing, Selection]] = []
    with opened.staging("put") as staging:

        def begin(listing: Listing) -> Open:
            taken.append((listing, select(listing)))
            wanted = {file.path for file in taken[0][1].files}
            return lambda path: staging.open(path) if path in wanted else None

        unpacker = Unpacker(begin, ref.kind)
        try:
            for chunk in chunks:
                unpacker.write(chunk)
                if unpacker.whole:
                    break
        except Failure:
            for _ in chunks:  # a sender beyond an API server waits until all of it is taken, and hears of nothing before
                pass
            raise
        unpacker.finish()
        listing, chosen = taken[0]
        artifact = opened.artifacts.commit(staging, kind=ref.kind, format=chosen.format)
    opened.refs.move(str(ref), artifact.digest, source=str(listing.ref))
    for left, why in chosen.left_out:
        session.out.note(f"left out {left}: {why}")
    session.out.record("Artifact", {**_record(artifact), "names": [str(ref)]}, [f"{ref}  {artifact.digest}"], name=artifact.digest)


def _find(opened: Yard, text: str) -> Artifact:
    return opened.artifacts.get(_digest(opened, text))


def _digest(opened: Yard, text: str) -> str:
    """The digest that a digest, its beginning or a name stands for. Raises NoInput: none, or more than one."""
    if "/" in text:
        return opened.refs.get(text).digest
    matching = [digest for digest in opened.artifacts.digests() if digest.startswith(text)]
    if len(matching) != 1:
        what = f"{text!r} begins {len(matching)} digests" if matching else f"there is no artifact {text!r}"
        raise NoInput(what, where=str(opened.root), remedy="modelyard yard ls shows what there is")
    return matching[0]


def _names(opened: Yard) -> dict[str, list[str]]:
    names: dict[str, list[str]] = {}
    for name, record in opened.refs.list().items():
        names.setdefault(record.digest, []).append(f"yard://{name}")
    return names


def _record(artifact: Artifact) -> dict[str, Any]:
    return {"digest": artifact.digest, "kind": artifact.kind, "format": artifact.format, "size": artifact.size}


def _text(value: dict[str, Any]) -> Iterator[str]:
    kind = value["kind"] + (f" ({value['format']})" if value["format"] else "")
    yield f"{kind} {value['digest']}, {format_bytes(value['size'])}, in {value['path']}"
    yield from value["names"]
    yield ""
    yield from table([[file["path"], format_bytes(file["size"]), short(file["sha256"])] for file in value["files"]], ["FILE", "SIZE", "SHA256"])
    for action in value["actions"]:
        yield ""
        yield f"made by {action['attempt'] or action['verb']} on {action['device']}, {action['at']}"
        yield from (f"  {name} = {setting}" for name, setting in action["settings"].items())
        yield from (f"  {name}: {source}" for name, source in action["inputs"].items())
        yield from (f"  {name} = {choice['value']}: {choice['reason']}" for name, choice in action["decisions"].items())
