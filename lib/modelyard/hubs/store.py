"""The one store behind a hub folder: blobs by sha256, commits as trees of them, branches that move and tags that stay.

    DIR/owner/name/…, DIR/datasets/owner/name/…        what people put there: the first commit of that repository, for as long as nobody has
                                                       committed to it; after that, only what was committed counts
    DIR/.modelyard/blobs/<sha256>                      content, for all repositories
    DIR/.modelyard/repos/models/<owner>/<name>/
        commits/<id>.json                              paths, sizes and hashes; message, time, parent
        state/<n>.json                                 what is said of the repository, its branches and tags; the largest n is in force
        hashes.json                                    sha256 of the files that people put there, by size and time of change

What a call has answered for is on the disk: a file is written aside, synced, and put in place by rename or link. A new state is made by linking
n + 1, which only one of two writers can: the other reads again and puts its change on top, in this process or in another. States are never
removed, so that a number is never used twice. Blobs that no commit names stay too. Nothing here decides who may read or write.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import Field

from modelyard import refs
from modelyard.errors import Corrupt, Failure, NoInput, NoPermission, Unavailable, Usage, VolumeFailed, suggest
from modelyard.hubs import blobs, card, local, source
from modelyard.hubs.blobs import Blobs, Upload
from modelyard.hubs.listing import HubFile
from modelyard.hubs.source import BRANCH, DEFAULTS, Commit, Entry, Repo
from modelyard.refs import RefKind
from modelyard.spec import digest
from modelyard.yard import files
from modelyard.yard.manifest import Digest, check_paths
from modelyard.yard.records import Record, encode, load, store, utc_now

OWN = ".modelyard"
_ID = re.compile(r"[0-9a-f]{40}")
_HEX = re.compile(r"[0-9a-f]{7,64}")
_ROUNDS = 1000  # another process may be faster that often in a row; more, and something else is wrong
_MESSAGE = 10_000
_COMMITS_IN_MEMORY = 64
_CARDS_IN_MEMORY = 4096

_Mark = tuple[int, int] | None


class State(Record):
    """One state of a repository; without branches, its files are those that lie in the folder."""

    private: bool = False
    gated: bool = False
    licence: str | None = None
    description: str = ""
    created: str
    updated: str
    branches: dict[str, str] = {}
    tags: dict[str, str] = {}


class _Tree(Record):
    files: tuple[tuple[str, Annotated[int, Field(ge=0)], Digest], ...]
    message: str
    at: str
    parent: str | None


class _Hashes(Record):
    files: dict[str, tuple[int, str, Digest]] = {}


class _Lying(NamedTuple):
    """The commit that a folder's files make, and until when (monotonic seconds) it is not looked at again."""

    commit: Commit
    until: float


class Store:
    """The store of a hub folder. Safe for threads, and for several processes on one folder."""

    def __init__(self, root: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Writes nothing yet. clock: monotonic seconds."""
        self.root = root
        self._own = root / OWN
        self._blobs = Blobs(self._own)
        self._clock = clock
        self._writing = threading.Lock()  # writers of one process wait for each other instead of trying again
        self._hashing: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._lying: dict[str, _Lying] = {}
        self._downloads: Counter[str] = Counter()
        self._tree = lru_cache(_COMMITS_IN_MEMORY)(self._load)
        self._card = lru_cache(_CARDS_IN_MEMORY)(self._read_card)

    # --- reading ---------------------------------------------------------------------------------------------------------------------------

    def repos(self, kind: RefKind) -> list[Repo]:
        """See `Source`."""
        found = []
        for owner, name in self.names(kind):
            with suppress(Failure):  # one that is broken hides no other; asked for by its name, it says what is wrong
                found.append(self.find(kind, owner, name))
        return [repo for repo in found if repo]

    def names(self, kind: RefKind) -> list[tuple[str, str]]:
        """Owner and name of everything that lies where a repository does, sorted."""
        tops = (self.root / "datasets" if kind == "dataset" else self.root, self._own / "repos" / f"{kind}s")
        return sorted({(owner, name) for top in tops for owner in _parts(top) for name in _parts(top / owner)})

    def find(self, kind: RefKind, owner: str, name: str) -> Repo | None:
        """See `Source`. Raises Refused: a symbolic link lies in its place."""
        if kind == "model" and owner == "datasets":
            return None  # that folder belongs to the data sets
        for what, part in (("owner", owner), ("name", name)):
            refs.check_part(part, what, f"{owner}/{name}")
        repo = Repo(kind, owner, name)
        _, state = self._state(repo)
        folder = self._folder(repo)
        if state is None and folder is None:
            return None
        if state and state.branches:
            said = self._card(repo.below, state.branches[BRANCH])
            created, updated = state.created, state.updated
        else:
            said = self._card(repo.below, tuple(_mark(folder / path) for path in card.FILES)) if folder else card.Card()
            changed = files.status(folder) if folder else None
            updated = source.iso(changed.st_mtime_ns) if changed else ""
            created = state.created if state else updated
        return Repo(
            kind,
            owner,
            name,
            private=bool(state and state.private),
            gated=bool(state and state.gated),
            licence=said.licence or (state.licence if state else None),
            task=said.task,
            description=(state.description if state else "") or said.description,
            created=created,
            updated=updated,
            downloads=self._downloads[repo.below],
        )

    def repo(self, kind: RefKind, owner: str, name: str) -> Repo:
        """See `Source`."""
        if found := self.find(kind, owner, name):
            return found
        remedy = suggest(f"{owner}/{name}", sorted(repo.id for repo in self.repos(kind) if not repo.private) or ["none yet"])
        raise NoInput(f"there is no {kind} {owner}/{name}", where="the hub", remedy=remedy)

    def branches(self, repo: Repo) -> Mapping[str, str]:
        """See `Source`."""
        _, state = self._state(repo)
        return dict(state.branches) if state and state.branches else {BRANCH: self._first(repo).id}

    def tags(self, repo: Repo) -> Mapping[str, str]:
        """See `Source`."""
        _, state = self._state(repo)
        return dict(state.tags) if state else {}

    def commits(self, repo: Repo) -> bool:
        """Whether anything was committed to it: otherwise its files are those that lie in the folder."""
        _, state = self._state(repo)
        return bool(state and state.branches)

    def commit(self, repo: Repo, revision: str | None = None) -> Commit:
        """See `Source`."""
        wanted = BRANCH if revision in DEFAULTS else refs.check_revision(revision or "", repo.id)
        _, state = self._state(repo)
        if not state or not state.branches:
            first = self._first(repo)
            if wanted in (BRANCH, first.id):
                return first
            known = [BRANCH]
        else:
            found = state.branches.get(wanted) or state.tags.get(wanted) or (wanted if _ID.fullmatch(wanted) else None)
            if found and (found != wanted or files.status(self._place(repo) / "commits" / f"{found}.json")):
                return self._tree(repo.below, found)
            known = [*state.branches, *state.tags]
        raise NoInput(f"{repo.id} has no revision {wanted!r}", where="the hub", remedy=suggest(wanted, known))

    def size(self, repo: Repo) -> int | None:
        """See `Source`."""
        with suppress(Failure):
            if self.commits(repo):
                return self.commit(repo).size
            folder = self._folder(repo)
            return sum(file.size for file in local.list_files(folder, repo.id)) if folder else 0
        return None

    def count(self, repo: Repo) -> None:
        """See `Source`."""
        self._downloads[repo.below] += 1

    # --- writing ---------------------------------------------------------------------------------------------------------------------------

    def writer(self) -> Store:
        """See `Source`."""
        return self

    def create(
        self, kind: RefKind, owner: str, name: str, *, private: bool, gated: bool = False, licence: str | None = None, description: str = ""
    ) -> Repo:
        """Make an empty repository: its default branch has a first commit without files. Raises Usage where there is one of that name."""
        if self.find(kind, owner, name):
            raise Usage(f"{kind} {owner}/{name} exists", where="the hub", remedy="commit to it, or choose another name")
        if kind == "model" and owner == "datasets":
            raise Usage("a model's owner cannot be called `datasets`", where="the hub", remedy="choose another")
        for text in (licence or "", description):
            _check_text(text, f"{owner}/{name}")
        repo, now = Repo(kind, owner, name), utc_now()
        first = self._write(repo, _Tree(files=(), message="created", at=now, parent=None))
        about = {"licence": licence.lower() if licence else None, "description": description}
        made = State(private=private, gated=gated, **about, created=now, updated=now, branches={BRANCH: first.id})
        if self._advance(repo, lambda state: state or made) is not made:
            raise Usage(f"{kind} {owner}/{name} exists", where="the hub", remedy="commit to it, or choose another name")
        return self.repo(kind, owner, name)

    def mark(self, repo: Repo, *, private: bool | None = None, gated: bool | None = None) -> Repo:
        """Change who may read a repository; None leaves it as it is."""
        given = {key: value for key, value in {"private": private, "gated": gated}.items() if value is not None}
        fresh = State(created=repo.created or utc_now(), updated=repo.updated or utc_now())
        self._advance(repo, lambda state: (state or fresh).model_copy(update=given))
        return self.repo(repo.kind, repo.owner, repo.name)

    def has_blob(self, sha256: str, size: int | None = None) -> bool:
        """Whether content is stored already. size: that it must have, where one is given."""
        found = self._blobs.size(sha256)
        return found is not None and size in (None, found)

    def put_blob(self, stream: Iterable[bytes], sha256: str, size: int | None = None) -> None:
        """Store content. Raises Corrupt where it does not have that hash or that size."""
        self._blobs.put(stream, sha256, size)

    def upload(self, sha256: str, size: int | None = None) -> Upload:
        """Content that comes piece by piece: `write` and, at the end, `finish`."""
        return self._blobs.upload(sha256, size)

    def change(
        self, repo: Repo, branch: str | None, adds: Mapping[str, str], deletes: Collection[str], message: str, *, expected: str | None = None
    ) -> Commit:
        """Put one commit on a branch; where nothing changes, the branch's head is the answer.

        adds: path -> sha256 of content that is stored. deletes: paths, done first; one that ends with `/` is a folder. expected: the branch's head,
        Usage where it is another by now. Raises NoInput: branch, content or a path to delete is not there; Refused: a path is not allowed.
        """
        _check_text(message, repo.id)
        name = BRANCH if branch in DEFAULTS else refs.check_revision(branch or "", repo.id)
        if adds:
            check_paths(adds, repo.id)
        self._settle(repo)  # before the contents are looked for: one of them may be a file that lies in the folder
        sizes = {path: self._stored(path, sha256) for path, sha256 in adds.items()}
        commit: Commit | None = None

        def move(state: State | None) -> State:
            nonlocal commit
            head = state.branches.get(name) if state else None
            if state is None or head is None:
                raise NoInput(f"{repo.id} has no branch {name!r}", where="the hub", remedy=suggest(name, state.branches if state else [BRANCH]))
            if expected is not None and expected != head:
                raise Usage(
                    f"the branch {name!r} has moved", where=repo.id, why=f"it is at {head}, not at {expected}", remedy="read it, then try again"
                )
            commit = self._tree(repo.below, head)
            tree = {entry.path: (entry.path, entry.size, entry.sha256) for entry in commit.files}
            changed = _without(tree, deletes, repo.id) | {path: (path, sizes[path], sha256) for path, sha256 in adds.items()}
            if changed == tree:
                return state
            if changed:
                check_paths(changed, repo.id)
            now = utc_now()
            listed = tuple(changed[path] for path in sorted(changed))
            commit = self._write(repo, _Tree(files=listed, message=message, at=now, parent=head))
            return state.model_copy(update={"updated": now, "branches": {**state.branches, name: commit.id}})

        self._advance(repo, move)
        if commit is None:
            raise VolumeFailed("no state could be read", where=str(self._place(repo)), remedy="look at the volume")
        return commit

    def branch(self, repo: Repo, name: str, commit: str) -> None:
        """Make a branch at a commit. Raises Usage where the name is taken, or is none."""
        self._name(repo, name, commit, "branches")

    def tag(self, repo: Repo, name: str, commit: str) -> None:
        """Keep a commit under a name that does not move. The same again is no error; Usage where the name is taken, or is none."""
        self._name(repo, name, commit, "tags")

    def sweep(self) -> None:
        """Remove what uploads that never ended have left, once it is old."""
        self._blobs.sweep()

    # --- states and commits ----------------------------------------------------------------------------------------------------------------

    def _name(self, repo: Repo, name: str, commit: str, where: str) -> None:
        refs.check_revision(name, repo.id)
        if name in DEFAULTS or _HEX.fullmatch(name):
            raise Usage(
                f"{name!r} cannot be given", where=repo.id, why="it is the default branch's name, or looks like a commit", remedy="choose another"
            )
        self._settle(repo)
        target = self.commit(repo, commit).id

        def add(state: State | None) -> State:
            known = {**state.branches, **state.tags} if state else {}
            if state is None or known.get(name, target) != target or (name in known and name not in getattr(state, where)):
                why = f"it names {known.get(name)}"
                raise Usage(f"{name!r} is taken", where=repo.id, why=why, remedy="choose another: names of commits do not move")
            return state.model_copy(update={where: {**getattr(state, where), name: target}})

        self._advance(repo, add)

    def _state(self, repo: Repo) -> tuple[int, State | None]:
        """The number and the content of the state in force; 0 and None before the first."""
        folder = self._place(repo) / "state"
        numbers = [int(name.removesuffix(".json")) for name in files.names(folder) if re.fullmatch(r"[1-9][0-9]{0,17}\.json", name)]
        return (max(numbers), load(folder / f"{max(numbers)}.json", State)) if numbers else (0, None)

    def _advance(self, repo: Repo, change: Callable[[State | None], State]) -> State:
        """Put a change on top of the state in force; it is asked again where somebody else was faster."""
        folder = self._place(repo) / "state"
        with self._writing:
            for _ in range(_ROUNDS):
                number, state = self._state(repo)
                changed = change(state)
                if changed is state:
                    return changed
                files.make_folders(folder)
                aside = folder / f".{secrets.token_hex(8)}.tmp"
                try:
                    files.create(aside, encode(changed))
                    made = files.link(aside, folder / f"{number + 1}.json")
                    files.sync(folder)
                finally:
                    with suppress(Failure):  # what went wrong before says more
                        files.remove(aside)
                if made:
                    return changed
                if not files.status(folder / f"{number + 1}.json"):
                    raise VolumeFailed("the volume has no hard links", where=str(folder), remedy="keep the hub's folder on a POSIX volume")
        raise Unavailable("others write to this repository without a pause", where=repo.id, remedy="try again later")

    def _write(self, repo: Repo, tree: _Tree) -> Commit:
        name = digest(tree.model_dump(mode="json"))[:40]
        store(self._place(repo) / "commits" / f"{name}.json", tree)
        return self._commit(name, tree)

    def _load(self, below: str, name: str) -> Commit:
        kind: RefKind = "dataset" if below.count("/") == 2 else "model"
        owner, short = below.split("/")[-2:]
        path = self._place(Repo(kind, owner, short)) / "commits" / f"{name}.json"
        tree = load(path, _Tree)
        if tree is None:
            raise Corrupt("a commit is missing", where=str(path), remedy="bring the folder back from a copy")
        return self._commit(name, tree)

    def _commit(self, name: str, tree: _Tree) -> Commit:
        entries = tuple(Entry(path, size, sha256, self._own, f"{blobs.FOLDER}/{sha256}") for path, size, sha256 in tree.files)
        return Commit(name, entries, tree.message, tree.at, tree.parent)

    def _read_card(self, below: str, at: str | tuple[_Mark, ...]) -> card.Card:
        """at: a commit, or size and time of what lies in the folder: what was read before is not read again."""

        def small(path: str) -> bytes | None:
            if not isinstance(at, str):
                return _small(self.root / below / path)
            entry = self._tree(below, at).find(path)
            return b"".join(source.read(entry)) if entry and entry.size <= card.LARGEST else None

        return card.read(small)

    def _place(self, repo: Repo) -> Path:
        return self._own / "repos" / f"{repo.kind}s" / refs.check_part(repo.owner, "owner", repo.id) / refs.check_part(repo.name, "name", repo.id)

    def _stored(self, path: str, sha256: str) -> int:
        size = self._blobs.size(sha256)
        if size is None:
            raise NoInput(f"the content of {path!r} was not uploaded", where="the hub", why=f"there is no {sha256}", remedy="upload it first")
        return size

    # --- folders that people made ----------------------------------------------------------------------------------------------------------

    def _folder(self, repo: Repo) -> Path | None:
        folder = local.inside(self.root, repo.below, repo.id)
        return folder if folder.is_dir() else None

    def _first(self, repo: Repo) -> Commit:
        """The commit that the files in the folder make: walked again once ten times as long has passed as the last walk took."""
        folder = self._folder(repo)
        if folder is None:
            raise NoInput(f"there is no {repo.kind} {repo.id}", where="the hub", remedy="run again: it was there a moment ago")
        with self._hashing[repo.below]:
            began = self._clock()
            seen = self._lying.get(repo.below)
            if seen and began < seen.until:
                return seen.commit
            with local.failures(repo.id):
                listed = local.list_files(folder, repo.id)
            if listed:
                check_paths((file.path for file in listed), repo.id)
            walked = self._clock()
            entries = self._hashed(repo, sorted(listed, key=lambda file: file.path))
            content = [[entry.path, entry.size, entry.sha256] for entry in entries]
            newest = max((int(file.version) for file in listed), default=0)
            commit = Commit(digest({"files": content})[:40], entries, "the files of the folder", source.iso(newest))
            self._lying[repo.below] = _Lying(commit, walked + 10 * (walked - began))
            return commit

    def _hashed(self, repo: Repo, listed: Iterable[HubFile]) -> tuple[Entry, ...]:
        path = self._place(repo) / "hashes.json"
        known = (load(path, _Hashes) or _Hashes()).files
        entries, fresh = [], dict(known)
        try:
            for file in listed:
                size, version, sha256 = fresh.get(file.path, (-1, "", ""))
                below = f"{repo.below}/{file.path}"
                if (size, version) != (file.size, file.version):
                    hashed = hashlib.sha256()
                    for chunk in local.read_file(self.root, below, repo.id, HubFile(file.path, file.size, None, file.version)):
                        hashed.update(chunk)
                    sha256 = hashed.hexdigest()
                    fresh[file.path] = file.size, file.version, sha256
                if file.sha256 not in (None, sha256):
                    why = f"its sha256 is {sha256}"
                    raise Corrupt(
                        f"{file.path!r} is not what {local.SUMS} says", where=repo.id, why=why, remedy=f"copy it again, or correct {local.SUMS}"
                    )
                entries.append(Entry(file.path, file.size, sha256, self.root, below, file.version))
        finally:
            if fresh != known:
                with suppress(NoPermission):  # a folder that is only to be read: hashed again by the next server
                    store(path, _Hashes(files=fresh))
        return tuple(entries)

    def _settle(self, repo: Repo) -> None:
        """Copy what lies in the folder into the store, so that later changes of the folder change no commit."""
        if self.commits(repo):
            return
        first = self._first(repo)
        for entry in first.files:
            if not self.has_blob(entry.sha256, entry.size):
                self.put_blob(source.read(entry), entry.sha256, entry.size)
        listed = tuple((entry.path, entry.size, entry.sha256) for entry in first.files)
        store(self._place(repo) / "commits" / f"{first.id}.json", _Tree(files=listed, message=first.message, at=first.at, parent=None))
        fresh = State(created=first.at, updated=first.at)
        self._advance(repo, lambda state: state if state and state.branches else (state or fresh).model_copy(update={"branches": {BRANCH: first.id}}))


def _parts(folder: Path) -> list[str]:
    """Names of the folders in a folder that can be owners or repositories."""
    return [name for name in files.names(folder) if _allowed(name) and (folder / name).is_dir() and not (folder / name).is_symlink()]


def _allowed(name: str) -> bool:
    """Whether a name can be part of a ref."""
    with suppress(Usage):
        return bool(refs.check_part(name, "name", name))
    return False


def _check_text(text: str, where: str) -> None:
    """Accept a text that can be kept and shown. Raises Usage."""
    try:
        if len(text.encode()) <= _MESSAGE:
            return
        why = f"at most {_MESSAGE} bytes are kept"
    except UnicodeEncodeError:
        why = "it is not valid Unicode"
    raise Usage("a text is not accepted", where=where, why=why, remedy="correct it")


def _without(tree: Mapping[str, tuple[str, int, str]], deletes: Collection[str], where: str) -> dict[str, tuple[str, int, str]]:
    left = dict(tree)
    for path in deletes:
        gone = [name for name in left if name == path or (path.endswith("/") and name.startswith(path))]
        if not gone:
            raise NoInput(f"there is no {path!r} to delete", where=where, remedy="list the files")
        for name in gone:
            del left[name]
    return left


def _mark(path: Path) -> _Mark:
    found = files.status(path)
    return (found.st_size, found.st_mtime_ns) if found else None


def _small(path: Path) -> bytes | None:
    with suppress(Failure):  # a card that cannot be read says nothing; the file itself is refused when it is asked for
        found = files.status(path)
        return files.read(path) if found and found.st_size <= card.LARGEST else None
    return None
