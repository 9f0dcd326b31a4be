"""The reverse-path of forwarded mail, there and back."""

from __future__ import annotations

import pytest

from mailtwist.mail.address import parse_address
from mailtwist.mail.srs import DAY_S, VALID_DAYS, Srs, is_srs

NOW = 1_790_000_000.0
SRS = Srs(b"k" * 32)
OTHER = Srs(b"x" * 32)
FORWARDER = "team@ours.example"

SENDERS = [
    "bob@b.example",
    "Bob.Smith+tag@b.example",
    '"a b"@b.example',
    "a=b=c@b.example",
    "bob@xn--bcher-kva.example",
    "ü@b.example",
    "srs0x@b.example",
]


def there(reverse_path: str, srs: Srs = SRS, by: str = FORWARDER, seconds: float = NOW) -> str:
    return srs.rewrite(reverse_path, by, seconds=seconds)


def back(address: str, srs: Srs = SRS, seconds: float = NOW) -> str | None:
    found = srs.original(parse_address(address), seconds=seconds)
    return None if found is None else str(found)


@pytest.mark.parametrize("sender", SENDERS)
def test_a_bounce_finds_its_way_back(sender: str) -> None:
    rewritten = there(sender)
    assert rewritten.endswith("@ours.example")
    assert is_srs(parse_address(rewritten).local_part)
    assert back(rewritten) == sender


@pytest.mark.parametrize("change", [str.lower, str.upper])
def test_the_case_of_letters_may_change_on_the_way(change: object) -> None:
    rewritten = change(there("bob@b.example"))  # type: ignore[operator]
    found = back(rewritten)
    assert found is not None
    assert found.lower() == "bob@b.example"


# What needs no rewriting, or cannot be.
UNCHANGED = [
    "",
    "bob@ours.example",
    "bob@[192.0.2.1]",
    f"{'x' * 60}@b.example",
    f"bob@{'x' * 60}.example",
    "no address",
]


@pytest.mark.parametrize("sender", UNCHANGED)
def test_other_paths_stay(sender: str) -> None:
    assert there(sender) == sender


def test_a_second_forwarder_does_not_make_it_longer_each_time() -> None:
    first = there("bob@b.example", OTHER, "x@first.example")
    second = there(first)
    third = there(second, OTHER, "y@third.example")
    assert second.startswith("SRS1=")
    assert third.startswith("SRS1=")
    assert len(third) == len(second.replace("ours", "third"))
    # Each bounce goes from the last one straight to the first, who made the SRS0 address.
    assert back(second) == first
    assert back(third, OTHER) == first
    assert back(first, OTHER) == "bob@b.example"


def test_what_others_made_goes_back_to_nobody() -> None:
    assert back(there("bob@b.example", OTHER)) is None
    assert back(there(there("bob@b.example", OTHER, "x@first.example"), OTHER)) is None


FORGED = [
    "SRS0=AAAAAA=AA=b.example=bob@ours.example",
    "SRS0=======@ours.example",
    "SRS0=@ours.example",
    "SRS1=AAAAAA=b.example==x@ours.example",
    "SRS1@ours.example",
    "bob@ours.example",
]


@pytest.mark.parametrize("address", FORGED)
def test_forged_ones_lead_nowhere(address: str) -> None:
    assert back(address) is None


@pytest.mark.parametrize("sender", SENDERS[:2])
def test_every_part_is_under_the_hash(sender: str) -> None:
    local_part, _, domain = there(sender).rpartition("@")
    for at in range(5, len(local_part)):
        if local_part[at] in "=.+":
            continue
        other = "b" if local_part[at] in "aA" else "a"
        assert back(f"{local_part[:at]}{other}{local_part[at + 1 :]}@{domain}") is None


# days later, whether a bounce is still let in
AGES = [
    (0, True),
    (VALID_DAYS, True),
    (VALID_DAYS + 1, False),
    (500, False),
    (-1, True),
    (-2, False),
]


@pytest.mark.parametrize("days, is_good", AGES)
def test_an_address_is_good_for_three_weeks(days: int, *, is_good: bool) -> None:
    for start in (
        NOW,
        NOW + 1024 * DAY_S - NOW % (1024 * DAY_S),
    ):  # and where the count starts over
        rewritten = there("bob@b.example", seconds=start)
        assert (back(rewritten, seconds=start + days * DAY_S) is not None) is is_good
