"""`modelyard yard`: ls, show, get, put, verify, gc, pin."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from modelyard import refs
from modelyard.cli.options import duration
from modelyard.cli.output import short, table
from modelyard.cli.session import Session, command
from modelyard.errors import Corrupt, NoInput, Usage
from modelyard.quantities import format_bytes
from modelyard.yard import Artifact, Yard

_NAME = "A digest, the beginning of one, or a name such as models/reviews@champion"
_ARTIFACT = click.argument("artifact", help=f"{_NAME}.")


@command("ls", examples=["modelyard yard ls", "modelyard yard ls -q", "modelyard yard ls -o json"])
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


@command("show", examples=["modelyard yard show 3f2a9c", "modelyard yard show models/reviews@champion -o json"])
@_ARTIFACT
def show(session: Session, artifact: str) -> None:
    """Show an artifact: its files, and what made it."""
    opened = session.yard()
    found = _find(opened, artifact)
    made = [action.model_dump(mode="json") for action in opened.actions.list() if action.artifact == found.digest]
    files = [asdict(entry) for entry in found.files]
    value = {**_record(found), "path": str(found.path), "names": _names(opened).get(found.digest, []), "files": files, "actions": made}
    session.out.record("Artifact", value, _text(value), name=found.digest)


@command("get", examples=["modelyard yard get models/reviews@champion ./model"])
@_ARTIFACT
@click.argument("folder", type=click.Path())
def get(session: Session, artifact: str, folder: str) -> None:
    """Copy an artifact's files into a new folder."""
    found, target = _find(session.yard(), artifact), Path(folder)
    if target.exists():
        raise Usage("the folder is there already", where=folder, remedy="name a new one")
    shutil.copytree(found.path, target, copy_function=shutil.copyfile)
    session.out.record("Copy", {"digest": found.digest, "path": str(target)}, [str(target)], name=str(target))


@command("put", examples=["modelyard yard put ./reviews.csv datasets/reviews", "modelyard yard put ./model models/base@v1"])
@click.argument("path", type=click.Path())
@click.argument("name", help="models/NAME[@ALIAS] or datasets/NAME[@ALIAS].")
def put(session: Session, path: str, name: str) -> None:
    """Bring a file or folder of this machine into the yard.

    Pickles and code stay outside, as with a fetch.
    """
    from modelyard import hubs
    from modelyard.hubs.selection import select

    ref = refs.parse(f"yard://{name.removeprefix('yard://')}")
    if not isinstance(ref, refs.YardRef):
        raise Usage(f"{name!r} is no name in the yard", remedy="write models/NAME or datasets/NAME")
    listing = hubs.resolve(refs.PathRef(str(Path(path).absolute())), ref.kind, {})
    chosen, reader, opened = select(listing), hubs.reader(listing, {}), session.yard(write=True)
    with opened.staging("put") as staging:
        for file in chosen.files:
            with staging.open(file.path) as target:
                for chunk in reader.read(listing, file):
                    target.write(chunk)
        artifact = opened.artifacts.commit(staging, kind=ref.kind, format=chosen.format)
    opened.refs.move(str(ref), artifact.digest, source=str(listing.ref))
    for left, why in chosen.left_out:
        session.out.note(f"left out {left}: {why}")
    session.out.record("Artifact", {**_record(artifact), "names": [str(ref)]}, [f"{ref}  {artifact.digest}"], name=artifact.digest)


@command("verify", examples=["modelyard yard verify", "modelyard yard verify models/reviews@champion"])
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


@command("gc", examples=["modelyard yard gc --dry-run", "modelyard yard gc --older-than 7d"])
@click.option("--older-than", type=duration, default="30d", help="Age from which a result is not young any more. [default: 30d]")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
def gc(session: Session, older_than: int, dry_run: bool) -> None:
    """Remove what nothing reaches any more.

    Kept is what a name, a pin, a live run or a young result reaches. The rest lies in the trash for a day before it is deleted.
    """
    done = session.yard(write=True).gc(older_than, dry_run=dry_run)
    counts = {key: len(value) if isinstance(value, list) else value for key, value in asdict(done).items()}
    text = [f"{name:<10}{format_bytes(count) if name == 'freed' else count}" for name, count in counts.items()]
    session.out.record("GarbageCollection", {**asdict(done), "dryRun": dry_run}, text, name="")


@command("pin", examples=["modelyard yard pin", "modelyard yard pin 3f2a9c --why 'the paper'", "modelyard yard pin 3f2a9c --remove"])
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


yard = click.Group("yard", (ls, show, get, put, verify, gc, pin), help="Look after the yard: artifacts, names, pins, space.")


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
