"""Rates as the configuration spells them."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailtwist.config import InvalidConfiguration, load
from mailtwist.config.rates import Rate, RateOf


@pytest.mark.parametrize(
    ("given", "rate", "shown"),
    [
        (0, Rate(0), 0),
        (100, Rate(100, 60), "100/m"),
        ("100", Rate(100, 60), "100/m"),
        ("100/m", Rate(100, 60), "100/m"),
        (" 100 / 60s ", Rate(100, 60), "100/m"),
        ("5/s", Rate(5, 1), "5/1s"),
        ("2000/h", Rate(2000, 3600), "2000/h"),
        ("20000/d", Rate(20000, 86400), "20000/d"),
        ("30/10m", Rate(30, 600), "30/10m"),
        ("7/1h30m", Rate(7, 5400), "7/90m"),
        ("0/d", Rate(0, 86400), 0),
        (Rate(7), Rate(7), "7/m"),
    ],
)
def test_a_rate_is_read_and_shown(given: object, rate: Rate, shown: object) -> None:
    assert RateOf().parse(given) == rate
    assert RateOf().show(rate) == shown
    assert RateOf().parse(shown).count == rate.count


@pytest.mark.parametrize(
    "given",
    [
        "", "x", -1, "-1", "100/", "/m", "100/x", "100/0s", "100/32d", "1.5", 1.5, True, None, [],
        {"a": 1}, "1000001", "100/m/h", "1e3", "9" * 400, "5/" + "9" * 400 + "s",
    ],
    ids=lambda value: repr(value)[:20],
)  # fmt: skip
def test_what_is_no_rate_is_refused(given: object) -> None:
    with pytest.raises(ValueError, match="must be a rate such as 100"):
        RateOf().parse(given)


def test_rates_come_from_files_and_variables(tmp_path: Path) -> None:
    path = tmp_path / "mailtwist.yaml"
    path.write_text("limits: {message_rate: 100/h, connection_rate: 7, exempt: [10.0.0.0/8]}\n")
    found = load(path, {"MAILTWIST_LIMITS_RECIPIENT_RATE": "20/10m"})
    assert found.limits.message_rate == Rate(100, 3600)
    assert found.limits.connection_rate == Rate(7, 60)
    assert found.limits.recipient_rate == Rate(20, 600)
    assert found.limits.account_message_rate == Rate()
    assert found.limits.exempt == ("10.0.0.0/8",)


def test_a_wrong_rate_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mailtwist.toml"
    path.write_text('[limits]\nmessage_rate = "often"\n')
    with pytest.raises(InvalidConfiguration, match=r"limits\.message_rate: must be a rate"):
        load(path, {})


@pytest.mark.parametrize(
    "value", [".inf", "-.inf", ".nan", "9" * 400, f'"{"9" * 400}"', f'"{"9" * 400}d"']
)
@pytest.mark.parametrize("key", ["limits: {idle_timeout", "{max_message_size"])
def test_numbers_without_end_are_refused_in_words(tmp_path: Path, key: str, value: str) -> None:
    path = tmp_path / "mailtwist.yaml"
    path.write_text(f"{key}: {value}}}\n")
    with pytest.raises(InvalidConfiguration, match="must be"):
        load(path, {})
