"""search: what hubs have for a query, merged into one list in the order that was asked for.

The result is {"query": the settings, "found": a row for each repository, "unanswered": hubs that gave no answer, with why}. A hub that gives none
takes nothing from what the others found; only when no hub answers does the step fail, as the first of them did. Nothing is ranked here but by
the numbers that the hubs give: those of two hubs count different people's downloads.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from modelyard import hubs
from modelyard.errors import Failure, Unavailable
from modelyard.hubs import Found, Query
from modelyard.hubs.resolving import OFFLINE
from modelyard.refs import HUB_NAMES
from modelyard.steps import Search
from modelyard_jobs.atonce import at_once
from modelyard_jobs.context import Context, Produced

ANSWER_WITHIN = 300.0
"""Seconds; a hub's own deadlines are shorter."""

_SCHEMES = {name: scheme for scheme, name in HUB_NAMES.items()}


def run(context: Context) -> Produced:
    """Ask every hub of the settings at once. Raises the first hub's failure when none answers; Unavailable when none may be asked."""
    settings: Search = context.settings
    if os.environ.get(OFFLINE) == "1":
        raise Unavailable(f"{OFFLINE} is set", remedy=f"unset {OFFLINE} to search")
    query = Query(settings.query, settings.kind, settings.owner, settings.task, settings.licence, settings.sort, settings.limit)
    answers = at_once({name: partial(_search, name, query, context.hubs) for name in dict.fromkeys(settings.hub)}, ANSWER_WITHIN)
    failures = {name: answer for name, answer in answers.items() if isinstance(answer, Failure)}
    found = {str(item.ref): item for answer in answers.values() if not isinstance(answer, Failure) for item in answer[: query.limit]}
    for name, failure in failures.items():
        context.log.warning("a hub gave no answer", hub=name, what=str(failure), remedy=failure.remedy)
    context.result(
        {
            "query": settings.settings(),
            "found": [_row(item) for item in sorted(found.values(), key=_ORDERS[query.sort], reverse=True)],
            "unanswered": [{"hub": name, "what": str(failure), "remedy": failure.remedy} for name, failure in failures.items()],
        }
    )
    if len(failures) == len(answers):
        raise next(iter(failures.values()))
    return Produced()


def _search(name: str, query: Query, addresses: Mapping[str, str]) -> list[Found]:
    return hubs.open_hub(_SCHEMES[name], addresses).search(query)


def _row(item: Found) -> dict[str, Any]:
    return {**vars(item), "ref": str(item.ref)}


_ORDERS: Mapping[str, Callable[[Found], Any]] = {
    "downloads": lambda item: -1 if item.downloads is None else item.downloads,
    "updated": lambda item: item.updated or "",
}
"""What is compared, the largest first; what a hub does not say comes last."""
