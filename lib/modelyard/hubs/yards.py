"""A yard as a hub that is only read: what its names point to, as the repositories of one owner, `yard`.

    yard://models/NAME@ALIAS      the model yard/NAME at the revision ALIAS
    yard://datasets/NAME@ALIAS    the data set yard/NAME

`latest` is the default branch. A commit is an artifact: its id is the first 40 digits of the digest, and the whole digest names it too, also where no
alias points to it any more. Bytes are read where the yard keeps them; sizes are looked at, hashes are the manifest's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import NoReturn

from modelyard import refs
from modelyard.errors import Failure, NoInput, NoPermission, suggest
from modelyard.hubs import card, source
from modelyard.hubs.hub import Access
from modelyard.hubs.source import DEFAULTS, Commit, Entry, Repo
from modelyard.hubs.sourced import SourceHub
from modelyard.hubs.store import Store
from modelyard.refs import RefKind, Scheme
from modelyard.yard import Artifact, Yard, files
from modelyard.yard.layout import MARKER
from modelyard.yard.manifest import MANIFEST
from modelyard.yard.names import RefRecord

OWNER = "yard"
LATEST = "latest"

_KEPT = 64


def is_yard(folder: Path) -> bool:
    """Whether the folder is a yard rather than a hub's folder."""
    return files.status(folder / MARKER) is not None


class YardHub(SourceHub):
    """The hub whose repositories are the names of a yard; it is only read."""

    def __init__(self, root: Path, scheme: Scheme = "modelscope") -> None:
        """Raises NoInput: there is no yard."""
        super().__init__(YardSource(Yard.open(root, write=False)), str(root), scheme)

    def access(self) -> Access:
        """A yard takes no uploads."""
        return Access(user=None, writes=False)


class YardSource:
    """The reading side of a hub over an opened yard."""

    def __init__(self, yard: Yard) -> None:
        self._yard = yard
        self._downloads: Counter[str] = Counter()
        self._commit = lru_cache(_KEPT)(self._load)

    def repos(self, kind: RefKind) -> list[Repo]:
        """See `Source`."""
        names = {name.partition("/")[2].rpartition("@")[0] for name in self._yard.refs.list() if name.startswith(f"{kind}s/")}
        found = []
        for name in sorted(names):
            with suppress(Failure):  # one that is broken hides no other
                found.append(self.find(kind, OWNER, name))
        return [repo for repo in found if repo]

    def find(self, kind: RefKind, owner: str, name: str) -> Repo | None:
        """See `Source`."""
        refs.check_part(owner, "owner", f"{owner}/{name}")
        refs.check_part(name, "name", f"{owner}/{name}")
        aliases = self._aliases(kind, name) if owner == OWNER else {}
        if not aliases:
            return None
        said = self._card(self._shown(aliases))
        oldest = min(record.history()[-1].at for record in aliases.values())
        newest = max(record.at for record in aliases.values())
        repo = Repo(kind, owner, name, licence=said.licence, task=said.task, description=said.description, created=oldest, updated=newest)
        return Repo(**{**vars(repo), "downloads": self._downloads[repo.below]})

    def repo(self, kind: RefKind, owner: str, name: str) -> Repo:
        """See `Source`."""
        if found := self.find(kind, owner, name):
            return found
        remedy = suggest(f"{owner}/{name}", [repo.id for repo in self.repos(kind)] or ["none yet: name an artifact first"])
        raise NoInput(f"there is no {kind} {owner}/{name}", where="the yard", remedy=remedy)

    def branches(self, repo: Repo) -> Mapping[str, str]:
        """See `Source`."""
        return {alias: record.digest[:40] for alias, record in self._aliases(repo.kind, repo.name).items()}

    def tags(self, repo: Repo) -> Mapping[str, str]:  # noqa: ARG002  # Source's
        """None: every alias may move."""
        return {}

    def commit(self, repo: Repo, revision: str | None = None) -> Commit:
        """See `Source`."""
        aliases = self._aliases(repo.kind, repo.name)
        wanted = LATEST if revision in DEFAULTS and revision not in aliases else refs.check_revision(revision or LATEST, repo.id)
        if wanted in aliases:
            return self._commit(aliases[wanted].digest)
        if refs.HubRef("modelscope", repo.kind, repo.owner, repo.name, wanted).is_commit:
            known = [digest for digest in self._yard.artifacts.digests() if digest.startswith(wanted)]
            if len(known) == 1 and self._yard.artifacts.get(known[0]).kind == repo.kind:
                return self._commit(known[0])
        return self._unknown(repo, wanted, aliases)

    def size(self, repo: Repo) -> int | None:
        """See `Source`; of the alias that was moved last, where there is no `latest`."""
        with suppress(Failure):
            return self._shown(self._aliases(repo.kind, repo.name)).size
        return None

    def count(self, repo: Repo) -> None:
        """See `Source`."""
        self._downloads[repo.below] += 1

    def writer(self) -> Store:
        """A yard takes no uploads."""
        raise NoPermission("this hub is a yard, and read-only", remedy="publish to a hub folder, or use modelyard yard put")

    def _aliases(self, kind: RefKind, name: str) -> dict[str, RefRecord]:
        prefix = f"{kind}s/{name}@"
        return {key.removeprefix(prefix): record for key, record in self._yard.refs.list().items() if key.startswith(prefix)}

    def _shown(self, aliases: Mapping[str, RefRecord]) -> Commit:
        """What describes a repository."""
        return self._commit((aliases.get(LATEST) or max(aliases.values(), key=lambda record: record.at)).digest)

    def _unknown(self, repo: Repo, wanted: str, aliases: Mapping[str, RefRecord]) -> NoReturn:
        why = f"its aliases are {', '.join(aliases)}"
        raise NoInput(f"{repo.id} has no revision {wanted!r}", where="the yard", why=why, remedy=suggest(wanted, [*aliases]))

    def _load(self, digest: str) -> Commit:
        artifact: Artifact = self._yard.artifacts.get(digest)
        entries = tuple(Entry(file.path, file.size, file.sha256, artifact.path, file.path) for file in artifact.files)
        sealed = files.status(artifact.path.parent / MANIFEST)
        return Commit(digest[:40], entries, "an artifact", source.iso(sealed.st_mtime_ns if sealed else 0))

    def _card(self, commit: Commit) -> card.Card:
        def small(path: str) -> bytes | None:
            entry = commit.find(path)
            return b"".join(source.read(entry)) if entry and entry.size <= card.LARGEST else None

        return card.read(small)
