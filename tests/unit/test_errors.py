"""The table of failures: complete, consistent, and the one that others rely on."""

from __future__ import annotations

import pickle

import pytest

from modelyard import errors
from modelyard.errors import REGISTRY, Crashed, Failure, Rule, from_exit, from_record

# exit code -> class and rule: the contract with Jobs, drivers and scripts
TABLE = {
    64: ("usage", Rule.FAIL),
    65: ("data", Rule.FAIL),
    66: ("no-input", Rule.FAIL),
    69: ("unavailable", Rule.COUNT),
    70: ("bug", Rule.FAIL),
    73: ("no-space", Rule.FAIL),
    74: ("io", Rule.COUNT),
    75: ("yielded", Rule.IGNORE),
    76: ("corrupt", Rule.COUNT),
    77: ("no-permission", Rule.FAIL),
    78: ("no-accelerator", Rule.FAIL),
    79: ("deadline", Rule.FAIL),
    80: ("device-oom", Rule.FAIL),
    81: ("refused", Rule.FAIL),
    82: ("idle", Rule.FAIL),
    83: ("host-oom", Rule.FAIL),
    84: ("no-progress", Rule.FAIL),
    85: ("peer-lost", Rule.IGNORE),
    124: ("timed-out", Rule.CLI),
    130: ("interrupted", Rule.CLI),
    137: ("crashed", Rule.COUNT),
}


def test_the_table_is_the_contract() -> None:
    assert {cls.exit_code: (cls.category, cls.rule) for cls in REGISTRY.values()} == TABLE


@pytest.mark.parametrize("cls", REGISTRY.values(), ids=REGISTRY)
def test_each_row_says_what_it_means_and_survives_a_process_boundary(cls: type[Failure]) -> None:
    assert cls.meaning
    assert cls.__doc__
    assert cls.__doc__.startswith("Raised")
    failure = cls("what happened", where="here", why="because", remedy="do this")
    assert str(failure) == "here: what happened: because"
    for copy in (from_record(failure.record()), pickle.loads(pickle.dumps(failure))):
        assert type(copy) is cls
        assert copy.record() == failure.record()
    assert from_exit(cls.exit_code) is cls


@pytest.mark.parametrize("code", [-9, -11, 1, 2, 139, 255])
def test_every_other_exit_code_is_a_crash(code: int) -> None:
    assert from_exit(code) is Crashed


def test_no_failure_for_a_good_end() -> None:
    assert from_exit(0) is None


@pytest.mark.parametrize(("code", "name"), [(-9, "SIGKILL"), (139, "SIGSEGV"), (3, "exit 3"), (-200, "exit -200")])
def test_crashes_are_named(code: int, name: str) -> None:
    assert errors.signal_name(code) == name
