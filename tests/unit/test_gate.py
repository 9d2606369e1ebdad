"""The gate: floors against values and intervals, and the arithmetic of its power."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
from pydantic import ValidationError

from modelyard import gate as gates
from modelyard.errors import Corrupt, NoInput, Refused
from modelyard.gate import POWER, passing_value
from modelyard.steps import Gate

METRICS = {
    "accuracy": {"value": 0.80, "low": 0.7819, "high": 0.8170, "n": 2000, "interval": "wilson"},
    "f1_macro": {"value": 0.79, "low": 0.7712, "high": 0.8078, "n": 2000, "interval": "bootstrap"},
}
Z = 1.959963984540054
judge = partial(gates.judge, main="accuracy")


def gate(sure: bool = False, **floors: float) -> Gate:
    return Gate(metrics="score", at_least=floors, sure=sure)


def test_the_value_is_compared_and_equal_passes():
    verdict = judge(METRICS, gate(accuracy=0.80, f1_macro=0.79))
    verdict.enforce()
    assert verdict.passed
    assert verdict.record() == {
        "passed": True,
        "lines": [
            {
                "metric": "accuracy",
                "value": 0.8,
                "low": 0.7819,
                "high": 0.817,
                "n": 2000,
                "at_least": 0.8,
                "sure": False,
                "passed": True,
                "difference": False,
            },
            {
                "metric": "f1_macro",
                "value": 0.79,
                "low": 0.7712,
                "high": 0.8078,
                "n": 2000,
                "at_least": 0.79,
                "sure": False,
                "passed": True,
                "difference": False,
            },
        ],
    }


def test_sure_compares_the_lower_end():
    assert judge(METRICS, gate(sure=True, accuracy=0.7819)).passed
    verdict = judge(METRICS, gate(sure=True, accuracy=0.80))
    assert not verdict.passed
    with pytest.raises(Refused, match=r"lower end"):
        verdict.enforce()


def test_a_refusal_names_metric_value_interval_and_floor():
    verdict = judge(METRICS, gate(accuracy=0.75, f1_macro=0.81))
    assert [line.passed for line in verdict.lines] == [True, False]
    with pytest.raises(Refused) as refused:
        verdict.enforce(where="gate")
    assert refused.value.exit_code == 81
    assert refused.value.what == "the gate said no: f1_macro 0.79 (95 % interval 0.7712 to 0.8078, n = 2000); at least 0.81 asked for"
    assert refused.value.why == ""
    assert "gate.at_least.f1_macro" in refused.value.remedy


def test_every_failed_line_is_told():
    with pytest.raises(Refused) as refused:
        judge(METRICS, gate(accuracy=0.9, f1_macro=0.9)).enforce()
    assert "accuracy" in refused.value.what
    assert refused.value.why.startswith("f1_macro 0.79 ")


def test_a_value_close_under_the_floor_does_not_look_like_it():
    with pytest.raises(Refused, match=r"0\.79996 "):
        judge({"accuracy": {**METRICS["accuracy"], "value": 0.79996}}, gate(accuracy=0.80)).enforce()


def compared(value: float, low: float, high: float, **more: float) -> dict[str, Any]:
    difference = {"value": value, "low": low, "high": high, "n": 2000, "interval": "bootstrap"}
    return {name: {**METRICS["accuracy"], "difference": {**difference, **more}} for name in METRICS}


def no_worse(by: float = 0.01, sure: bool = False, **floors: float) -> Gate:
    return Gate(metrics="score", at_least=floors, not_worse_than_champion=by, sure=sure)


@pytest.mark.parametrize(("value", "passed"), [(0.02, True), (0.0, True), (-20 / 2000, True), (-21 / 2000, False)])
def test_no_worse_than_the_champion_is_a_floor_under_the_difference(value, passed):
    verdict = judge(compared(value, value - 0.02, value + 0.02), no_worse(0.01))
    assert (verdict.passed, len(verdict.lines)) == (passed, 1)
    assert verdict.lines[0].metric == "accuracy"
    assert (verdict.lines[0].difference, verdict.lines[0].at_least) == (True, -0.01)


def test_without_floors_the_tasks_own_metric_is_compared():
    lines = gates.judge(compared(0.0, -0.01, 0.01), no_worse(), main="f1_macro").lines
    assert [(line.metric, line.difference) for line in lines] == [("f1_macro", True)]
    with pytest.raises(NoInput, match="there is no metric 'map'"):
        gates.judge(compared(0.0, -0.01, 0.01), no_worse(), main="map")


def test_sure_compares_the_lower_end_of_the_difference():
    metrics = compared(0.0, -0.008, 0.008)
    assert judge(metrics, no_worse(0.01, sure=True)).passed
    assert not judge(metrics, no_worse(0.005, sure=True)).passed
    assert judge(metrics, no_worse(0.005)).passed


def test_the_difference_is_of_the_metrics_that_have_a_floor():
    verdict = judge(compared(-0.03, -0.05, -0.01), no_worse(0.01, accuracy=0.75, f1_macro=0.75))
    assert [(line.metric, line.difference, line.passed) for line in verdict.lines] == [
        ("accuracy", False, True),
        ("f1_macro", False, True),
        ("accuracy", True, False),
        ("f1_macro", True, False),
    ]
    with pytest.raises(Refused) as refused:
        verdict.enforce()
    what = "accuracy less the champion's -0.03 (95 % interval -0.05 to -0.01, n = 2000); at least -0.01 asked for"
    assert refused.value.what == f"the gate said no: {what}"
    assert refused.value.remedy == "make the model better, or raise gate.not_worse_than_champion"


def test_zero_allows_no_loss_at_all():
    verdict = judge(compared(0.0, -0.01, 0.01), no_worse(0.0))
    assert verdict.passed
    assert "at least 0 asked for" in str(verdict.lines[0])
    assert not judge(compared(-1 / 2000, -0.01, 0.01), no_worse(0.0)).passed


def test_metrics_of_one_model_alone_do_not_pass_a_comparison():
    with pytest.raises(NoInput, match="not compared with a champion") as missing:
        judge(METRICS, no_worse(0.5, accuracy=0.1))
    assert "against: yard://" in missing.value.remedy


@pytest.mark.parametrize("broken", [{}, [], "none", {"value": 0.0}, {"value": math.nan, "low": 0.0, "high": 0.0, "n": 1}])
def test_a_difference_that_cannot_be_read_never_passes(broken):
    with pytest.raises(Corrupt):
        judge({"accuracy": {**METRICS["accuracy"], "difference": broken}}, no_worse(0.99))


@pytest.mark.parametrize("settings", [{}, {"at_least": {}}, *({"not_worse_than_champion": loss} for loss in (-0.01, 1, math.inf))])
def test_a_gate_asks_for_something(settings):
    with pytest.raises(ValidationError):
        Gate(metrics="score", **settings)


def test_an_unknown_metric_is_no_input_with_a_suggestion():
    with pytest.raises(NoInput) as missing:
        judge(METRICS, gate(acuracy=0.8), where="score")
    assert missing.value.remedy == "did you mean 'accuracy'?"
    assert missing.value.where == "score"


@pytest.mark.parametrize(
    "broken",
    [
        None,
        {},
        {"value": 0.9},
        {**METRICS["accuracy"], "value": "high"},
        {**METRICS["accuracy"], "value": math.nan},
        {**METRICS["accuracy"], "low": math.inf},
    ],
)
def test_a_metric_that_cannot_be_read_never_passes(broken):
    with pytest.raises(Corrupt):
        judge({"accuracy": broken}, gate(accuracy=0.1))


def tail(count: int, n: int, share: float) -> float:
    return math.fsum(math.comb(n, k) * share**k * (1 - share) ** (n - k) for k in range(count, n + 1))


def wilson_low(count: int, n: int) -> float:
    share = count / n
    half = Z * math.sqrt(share * (1 - share) / n + Z * Z / (4 * n * n))
    return (share + Z * Z / (2 * n) - half) / (1 + Z * Z / n)


@pytest.mark.parametrize("sure", [False, True])
@pytest.mark.parametrize("n", [1, 7, 50, 200, 500])
@pytest.mark.parametrize("at_least", [0.01, 0.07, 0.29, 0.5, 0.58, 0.75, 0.8, 0.95, 0.999, 1.0])
def test_the_passing_value_passes_four_times_of_five(at_least, n, sure):
    passing = [k for k in range(n + 1) if (wilson_low(k, n) if sure else k / n) >= at_least]
    found = passing_value(at_least, n, sure)
    if not passing:
        assert found is None
    else:
        assert found is not None
        assert tail(passing[0], n, found) == pytest.approx(POWER, abs=1e-3)


def test_the_passing_value_of_two_thousand_rows():
    assert passing_value(0.80, 2000) == pytest.approx(0.8072, abs=1e-4)  # 0.8075 where the binomial is taken for normal
    assert passing_value(0.80, 2000, sure=True) == pytest.approx(0.8249, abs=1e-4)


def test_a_floor_under_one_row_asks_for_one_row():
    found = passing_value(1e-10, 10)
    assert found is not None
    assert tail(1, 10, found) == pytest.approx(POWER, abs=1e-3)


@pytest.mark.parametrize("floor", [math.nan, math.inf, -math.inf])
def test_a_floor_is_a_number(floor):
    with pytest.raises(ValidationError, match="finite"):
        gate(accuracy=floor)


def test_what_always_or_never_passes():
    assert passing_value(0.0, 10) == 0.0
    assert passing_value(-1.0, 10, sure=True) == 0.0
    assert passing_value(1.1, 10) is None
    assert passing_value(0.5, 0) is None
    assert passing_value(0.9, 10, sure=True) is None  # ten of ten have a lower end of 0.72
    assert passing_value(0.8, 10**7) == pytest.approx(0.8001, abs=1e-4)
