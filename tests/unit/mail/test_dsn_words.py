"""What people read in a report: what happened, to whom, why, and what to do."""

from __future__ import annotations

from typing import Any

import pytest

from mailtwist.mail.address import Address
from mailtwist.mail.dsn.reasons import REASONS, reason_for
from mailtwist.mail.dsn.values import Action, Fate, Kind, Report, printable
from mailtwist.mail.dsn.words import write

SECOND = 1_000_000
DAY = 86_400 * SECOND
NOW = 1_795_200_000 * SECOND  # Fri, 20 Nov 2026 18:40:00 +0000


def words(*fates: Fate, **changes: Any) -> str:
    values: dict[str, Any] = {
        "kind": Kind.FAILURE,
        "hostname": "mail.example.com",
        "sender": Address("alice", "example.com"),
        "fates": fates,
        "token": "0",
        "now": NOW,
        "received_at": NOW - 5 * DAY,
        "queue_id": "77",
        "header": b"A: b\r\n",
    }
    return write(Report(**{**values, **changes}), subject="Lunch")


def failed(status: str, **changes: Any) -> Fate:
    values: dict[str, Any] = {
        "address": "bob@example.net",
        "action": Action.FAILED,
        "code": 550,
        "status": status,
        "text": "No",
        "attempts": 1,
    }
    return Fate(**{**values, **changes})


def test_a_bounce_reads_like_a_letter() -> None:
    fate = failed(
        "5.1.1",
        text="<bob@example.net>: Recipient address rejected: User unknown in virtual table",
        remote="mx1.example.net",
        remote_address="192.0.2.1:25",
    )
    assert (
        words(fate)
        == """\
Your message was NOT delivered to this recipient:

    bob@example.net

Why: There is no such address at example.net.

The mail server mx1.example.net (192.0.2.1:25) answered:

    550 5.1.1 <bob@example.net>: Recipient address rejected: User
    unknown in virtual table

What you can do: Check the address for a typing error and send the
message again. If it is right, ask the recipient in another way whether
it is still in use.

------------------------

The message that this is about:

    Subject:         Lunch
    Sent:            Sun, 15 Nov 2026 18:40:00 UTC
    Our reference:   77
    Our mail server: mail.example.com

Its header is attached.
"""
    )


def test_a_warning_says_that_nothing_is_to_be_done() -> None:
    late = Fate("bob@example.net", Action.DELAYED, 451, "4.7.1", "Greylisted", attempts=9)
    text = words(late, kind=Kind.DELAY, retry_until=NOW + DAY)

    assert text.startswith("Your message has not been delivered YET to this recipient:")
    assert "You need not do anything. Please do not send the message again." in text
    assert "We go on trying until Sat, 21 Nov 2026 18:40:00" in text
    assert "451 4.7.1 Greylisted" in text
    assert "What you can do" not in text


def test_a_delivery_was_asked_for() -> None:
    text = words(Fate("bob@example.net", Action.DELIVERED, 250), kind=Kind.SUCCESS)

    assert text.startswith("As you asked to be told: your message was delivered to this recipient:")
    assert "Whether it was read is not known." in text


def test_a_relayed_message_is_the_last_that_is_heard_of_it() -> None:
    fate = Fate("bob@example.net", Action.RELAYED, 250, remote="mx.example.net")
    text = " ".join(words(fate, kind=Kind.SUCCESS).split())

    assert "The mail server mx.example.net took it and is responsible for it now." in text


@pytest.mark.parametrize(
    ("attempts", "waited", "sentence"),
    [
        (1, 1 * SECOND, "We tried once in 1 second and have given up"),
        (3, 90 * SECOND, "We tried 3 times in 90 seconds and have given up"),
        (9, 7200 * SECOND, "We tried 9 times in 2 hours and have given up"),
        (61, 5 * DAY, "We tried 61 times in 5 days and have given up"),
        (2, 30 * 3600 * SECOND, "We tried 2 times in 30 hours and have given up"),
        (0, DAY, "It waited for 1 day and could not be tried in that time."),
    ],
)
def test_who_gives_up_says_how_long_it_was_tried(attempts: int, waited: int, sentence: str) -> None:
    fate = failed("4.4.7", code=451, text="4.2.2 Full", attempts=attempts, is_expired=True)
    text = " ".join(words(fate, received_at=NOW - waited).split())

    assert sentence in text
    assert "Why: The recipient's mailbox is full." in text  # not only that time is over
    assert "451 4.2.2 Full" in text


def test_recipients_of_whom_the_same_is_said_stand_together() -> None:
    same = [failed("5.1.1", address=f"u{n}@example.net") for n in range(3)]
    other = failed("5.2.2", address="full@example.net")

    text = words(same[0], other, *same[1:])

    assert (
        "to these 3 recipients:\n\n    u0@example.net\n    u1@example.net\n    u2@example.net\n"
    ) in text
    assert text.count("Why:") == 2


def test_a_hundred_different_refusals_are_not_explained_one_by_one() -> None:
    fates = [failed("5.1.1", address=f"u{n}@example.net", text=f"No {n}") for n in range(100)]

    text = words(*fates)

    assert text.count("Why:") == 20
    assert "The same happened with these:\n\n    u20@example.net: 550 5.1.1 No 20\n" in text
    assert "    u99@example.net: 550 5.1.1 No 99\n" in text


def test_an_alias_is_named_once_however_often_it_failed() -> None:
    fate = failed("5.1.1", address="info@example.com", is_forwarded=True)

    assert words(fate, fate).count("info@example.com") == 1
    assert "to this recipient:" in words(fate, fate)


def test_a_forwarded_recipient_keeps_the_secret_of_where_to() -> None:
    fate = failed("5.1.1", address="info@example.com", is_forwarded=True)

    assert "Why: There is no such address at the place it is forwarded to." in words(fate)


def test_what_we_found_ourselves_is_not_said_to_be_an_answer() -> None:
    text = words(failed("5.1.10", code=556, text="example.net takes no mail", is_ours=True))

    assert "Our own mail server noted:\n\n    556 5.1.10 example.net takes no mail" in text
    assert "answered" not in text


def test_what_we_met_at_a_server_names_it() -> None:
    fate = failed("5.7.30", text="no TLS", is_ours=True, remote="mx.example.net")
    text = " ".join(words(fate).split())

    assert "With the mail server mx.example.net our own met this:" in text
    assert "(REQUIRETLS)" in text


@pytest.mark.parametrize("key", REASONS)
def test_every_reason_can_be_met_and_is_whole(key: str) -> None:
    status = key.replace("X", "5", 1) if key.startswith("X") else key
    status = status.replace("X", "99")
    reason = REASONS[key]

    assert reason_for(status) is reason
    text = words(failed(status))
    assert max(map(len, text.splitlines())) <= 72
    assert "{" not in text
    assert reason.why.endswith(".")
    assert reason.advice.endswith(".")


@pytest.mark.parametrize(
    ("status", "words_of_it"),
    [
        ("5.1.1", "no such address"),
        ("5.1.0", "does not take mail for this address"),
        ("4.7.1", "put us off"),
        ("5.7.1", "unwanted"),
        ("4.1.1", "no such address"),
        ("5.0.0", "refused the message"),
        ("4.0.0", "could not take the message"),
        ("4.1.0", "could not take the message"),
        ("5.9.9", "refused the message"),
        ("", "refused the message"),
    ],
)
def test_a_status_is_explained(status: str, words_of_it: str) -> None:
    assert words_of_it in reason_for(status).why


@pytest.mark.parametrize(
    ("stage", "code", "why"),
    [
        ("rcpt", 550, "does not take mail for this address"),
        ("rcpt", 551, "has moved"),
        ("rcpt", 552, "mailbox is full"),
        ("end", 552, "larger than"),
        ("end", 554, "refused the message"),
    ],
)
def test_a_server_without_status_codes_is_understood_by_its_command(
    stage: str, code: int, why: str
) -> None:
    text = words(failed("5.0.0", code=code, stage=stage, text="No"))

    assert why in text
    assert f"    {code} No\n" in text  # no status is put into its mouth


def test_a_recipient_whom_nobody_could_try_is_out_of_reach() -> None:
    text = words(Fate("bob@example.net", Action.DELAYED), kind=Kind.DELAY)

    assert "Why: The mail server of example.net cannot be reached." in text
    assert "noted" not in text  # nothing is there to be quoted


def test_a_returned_original_is_pointed_at() -> None:
    assert "It is attached as it was." in words(failed("5.1.1"), whole=b"A: b\r\n\r\n")
    assert "attached" not in words(failed("5.1.1"), header=b"")


def test_a_long_link_stays_whole() -> None:
    link = "https://example.net/why?" + "x" * 120

    assert f"    {link}\n" in words(failed("5.7.1", text=f"See {link}"))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\r\nb\tc", "a b c"),
        ("a\u202eb\u200bc", "a b c"),
        ("x" * 501, "x" * 497 + "..."),
        ("\x1b[31mred", "[31mred"),
        ("", ""),
    ],
)
def test_foreign_text_becomes_one_visible_line(text: str, shown: str) -> None:
    assert printable(text) == shown
