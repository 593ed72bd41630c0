from datetime import UTC, datetime

import pytest

from clay_publish.windows import Window, parse_time, parse_token


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_a_window_is_half_open() -> None:
    window = Window.parse("2023-01-01/2023-02-01")
    assert at("2023-01-01") in window
    assert at("2023-02-01") not in window
    assert not window.overlaps(Window.parse("2023-02-01/2023-03-01"))
    assert window.overlaps(Window.parse("2023-01-31/2023-03-01"))


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        ("2016-01-12T15:59:00", None, "2016-01-12_2016-01-13"),
        ("2016-01-12", None, "2016-01-12_2016-01-13"),
        ("2016-01-12", "2016-01-12T23:59:59", "2016-01-12_2016-01-13"),
        ("2016-01-01", "2016-02-01", "2016-01-01_2016-02-01"),
        ("2016-01-01", "2016-02-01T00:00:01", "2016-01-01_2016-02-02"),
    ],
)
def test_whole_days_hold_an_acquisition_or_a_period(start: str, end: str | None, expected: str) -> None:
    assert Window.of_days(at(start), at(end) if end else None).token == expected


@pytest.mark.parametrize("text", ["2023-01-01/2023-02-01", "2023-01-01T06:30:00Z/2023-01-01T18:00:00+02:00"])
def test_a_token_names_its_window(text: str) -> None:
    window = Window.parse(text)
    assert parse_token(window.token) == window


@pytest.mark.parametrize("text", ["2023-01-01", "a/b", "2023-02-01/2023-01-01", "2023-01-01/2023-01-01", ""])
def test_what_is_no_window_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Window.parse(text)


def test_other_zones_become_utc() -> None:
    assert parse_time("2023-01-01T01:00:00+02:00") == at("2022-12-31T23:00:00")
