"""Several questions to others, asked at the same time, each with its answer or with why there is none.

For calls that wait, not for work: a thread that is still waiting when its time is over is left behind, and ends with the process.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

from modelyard.errors import Failure, Unavailable
from modelyard.quantities import format_seconds

_Answer = TypeVar("_Answer")


def at_once(questions: Mapping[str, Callable[[], _Answer]], seconds: float) -> dict[str, _Answer | Failure]:
    """Name -> answer, or the failure that the question raised; Unavailable for one that took longer than `seconds`.

    Raises what is no Failure: that is an error of ours.
    """
    answers: dict[str, _Answer | Failure] = {}
    broken: list[BaseException] = []

    def ask(name: str) -> None:
        try:
            answers[name] = questions[name]()
        except Failure as failure:
            answers[name] = failure
        except BaseException as error:  # noqa: BLE001  # raised again below, in the thread that asked
            broken.append(error)

    threads = [threading.Thread(target=ask, args=(name,), name=f"ask {name}", daemon=True) for name in questions]
    for thread in threads:
        thread.start()
    until = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(until - time.monotonic(), 0.0))
    if broken:
        raise broken[0]
    silent = Unavailable(f"no answer within {format_seconds(seconds)}", remedy="look whether the address is right and the network lets it through")
    return {name: answers.get(name, silent) for name in questions}
