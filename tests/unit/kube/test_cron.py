"""Cron expressions: those that Kubernetes takes, when they tick, and what a turned clock does to them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from modelyard.errors import Usage
from modelyard.kube import cron

BERLIN = "Europe/Berlin"


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("0 3 * * *", "2026-01-01T02:00"),
        ("  0  3 * * * ", "2026-01-01T02:00"),
        ("*/15 * * * *", "2026-01-01T00:15"),
        ("0 3 * * MON-FRI", "2026-01-01T02:00"),
        ("0 3 * jan,feb sun", "2026-01-04T02:00"),
        ("0 0 29 2 *", "2028-02-28T23:00"),
        ("0 3 13 * 5", "2026-01-02T02:00"),  # a Friday, or a thirteenth
        ("0 3 */2 * 5", "2026-01-01T02:00"),  # an odd day, or a Friday
        ("0 3 * * 3/2", "2026-01-02T02:00"),  # Wednesday and Friday, no Sunday
        ("0 3 1,* * 5", "2026-01-02T02:00"),  # a star is a star wherever it stands: Fridays
        ("0 3 */01 * 5", "2026-01-02T02:00"),
        ("0 3 5-5/2 * *", "2026-01-05T02:00"),
    ],
)
def test_what_kubernetes_takes(text: str, first: str) -> None:
    assert cron.next_tick(cron.check(text), BERLIN, at("2026-01-01")) == at(first)


def test_half_a_week_has_one_sunday() -> None:
    days = cron.last_ticks("0 12 * * 3/2", "Etc/UTC", at("2026-01-01"), at("2026-01-15"), 20)
    assert {day.strftime("%a") for day in days} == {"Wed", "Fri"}


@pytest.mark.parametrize(("field", "minutes"), [("5-5/2", [5]), ("7-9/7", [7]), ("50/5", [50, 55]), ("3,*/30", [0, 3, 30])])
def test_a_step_goes_no_further_than_its_range(field: str, minutes: list[int]) -> None:
    found = cron.last_ticks(cron.check(f"{field} 12 * * *"), "Etc/UTC", at("2026-01-01"), at("2026-01-02"), 60)
    assert [tick.minute for tick in reversed(found)] == minutes


def test_a_step_from_saturday_does_not_reach_a_second_sunday() -> None:
    found = cron.last_ticks(cron.check("0 12 * * 6/1"), "Etc/UTC", at("2026-01-01"), at("2026-01-31"), 60)
    assert {day.strftime("%a") for day in found} == {"Sat"}


@pytest.mark.parametrize(
    ("text", "words", "remedy"),
    [
        ("@daily", "words such as @daily", "'0 0 * * *'"),
        ("@every 1h", "words such as @daily", "minute, hour"),
        ("CRON_TZ=Asia/Shanghai 0 3 * * *", "a time zone does not belong", "--time-zone Asia/Shanghai and '0 3 * * *'"),
        ("0 3 * *", "it has 4 fields", "minute, hour"),
        ("0 0 3 * * *", "it has 6 fields", "minute, hour"),
        ("", "it has 0 fields", "minute, hour"),
        ("60 * * * *", "'60' is no minute", "minute, hour"),
        ("*/0 * * * *", "'*/0' is no minute", "minute, hour"),
        ("5-1 * * * *", "'5-1' is no minute", "minute, hour"),
        ("0 3 L * *", "'L' is no day of the month", "minute, hour"),
        ("0 3 ? * *", "'?' is no day of the month", "minute, hour"),
        ("0 3 * * 1#2", "'1#2' is no day of the week", "minute, hour"),
        ("0 3 * * 7", "0 (Sunday) to 6", "minute, hour"),
        ("0 3 * * 5-7", "0 (Sunday) to 6", "minute, hour"),
        ("0 3 * MON *", "'MON' is no month", "minute, hour"),
        ("0 3 0 * *", "'0' is no day of the month", "minute, hour"),
        ("0 3 1,,2 * *", "'1,,2' is no day of the month", "minute, hour"),
        ("0 0 30 2 *", "would never tick", "minute, hour"),
        ("0 0 31 4,6,sep *", "would never tick", "minute, hour"),
        ("0 0 31 4,6 1#9", "is no day of the week", "minute, hour"),
    ],
)
def test_what_it_does_not_take(text: str, words: str, remedy: str) -> None:
    with pytest.raises(Usage) as raised:
        cron.check(text)
    assert words in raised.value.why
    assert remedy in raised.value.remedy
    assert raised.value.where == "--cron"


def test_an_hour_that_is_left_out_has_no_tick_and_one_that_comes_twice_has_two() -> None:
    spring = cron.last_ticks("30 2 * * *", BERLIN, at("2026-03-27T12:00"), at("2026-03-30T12:00"), 10)
    assert spring == [at("2026-03-30T00:30"), at("2026-03-28T01:30")]
    autumn = cron.last_ticks("*/30 2 * * *", BERLIN, at("2026-10-24T12:00"), at("2026-10-25T12:00"), 10)
    assert autumn == [at(f"2026-10-25T{time}") for time in ("01:30", "01:00", "00:30", "00:00")]
    assert cron.next_tick("*/30 2 * * *", BERLIN, at("2026-10-25T00:00")) == at("2026-10-25T00:30"), "before the first comes again"
    assert cron.next_tick("30 2 * * *", BERLIN, at("2026-10-25T00:30")) == at("2026-10-25T01:30")
    assert cron.next_tick("30 2 * * *", BERLIN, at("2026-03-29T00:00")) == at("2026-03-30T00:30")


def test_the_last_ticks_are_bounded_on_both_sides() -> None:
    assert cron.last_ticks("* * * * *", "Etc/UTC", at("2020-01-01"), at("2026-01-01T00:02:30"), 2) == [at("2026-01-01T00:02"), at("2026-01-01T00:01")]
    assert cron.last_ticks("0 3 * * *", "Etc/UTC", at("2026-01-01T03:00"), at("2026-01-02T03:00"), 9) == [at("2026-01-02T03:00")]
    assert cron.last_ticks("0 3 * * *", "Etc/UTC", at("2026-01-01T03:00"), at("2026-01-02T02:59"), 9) == []


@pytest.mark.parametrize("name", ["Mars/Olympus", "../etc", "", "Local", "Europe", "/etc/localtime"])
def test_a_zone_that_is_none(name: str) -> None:
    with pytest.raises(Usage, match="is no time zone"):
        cron.check_zone(name)


def test_the_local_zone_has_a_name_or_is_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", ":Asia/Shanghai")
    assert cron.local_zone() == "Asia/Shanghai"
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    assert cron.local_zone() == "Etc/UTC"
    monkeypatch.delenv("TZ")
    monkeypatch.setattr(cron.os.path, "realpath", lambda _: "/usr/share/zoneinfo/Europe/Berlin")
    assert cron.local_zone() == BERLIN
    monkeypatch.setattr(cron.os.path, "realpath", lambda path: path)
    monkeypatch.setattr(Path, "is_file", lambda _: False)
    assert cron.local_zone() == "Etc/UTC"
