from __future__ import annotations

import mailbox
import os
from pathlib import Path
from typing import Any

import pytest

from mailtwist.cli.archives import open_archive, with_crlf
from mailtwist.cli.commands import importing
from mailtwist.mail.flags import ANSWERED, FLAGGED, SEEN
from mailtwist.store import accounts, content, mailboxes
from mailtwist.store.engine import Engine
from tests.cli.conftest import Mailtwist

pytestmark = pytest.mark.usefixtures("ready")

ADDRESS = "a@example.com"
# 2024-03-01 12:00:00 UTC
MARCH = 1_709_294_400


def mail(n: int, body: str = "hello", end: str = "\n") -> bytes:
    lines = [
        f"Subject: message {n}",
        f"Date: Fri, 01 Mar 2024 12:00:{n % 60:02d} +0000",
        "",
        body,
        "",
    ]
    return end.join(lines).encode()


def stored(store: Engine, name: str) -> list[dict[str, Any]]:
    """What the mailbox holds, in order of UID."""
    query = """
        SELECT m.uid, m.flags, m.internaldate, m.octets, d.subject, e.content_id
        FROM message m JOIN email e ON e.email_id = m.email_id
        JOIN email_detail d ON d.email_id = m.email_id
        WHERE m.account_id = ? AND m.mailbox_id = ? ORDER BY m.uid
    """
    with store.read() as connection:
        account = accounts.find(connection, ADDRESS)
        assert account is not None
        found = mailboxes.get(connection, account.account_id, name)
        parameters = (account.account_id, found.mailbox_id)
        rows = connection.exec_driver_sql(query, parameters).mappings().all()
        return [
            {**row, "data": content.read(connection, row["content_id"], 0, 1 << 20)} for row in rows
        ]


@pytest.fixture
def account(mailtwist: Mailtwist) -> str:
    assert mailtwist("account", "add", ADDRESS, "--password", "x").status == 0
    return ADDRESS


def test_a_folder_of_eml_files_comes_in_name_order(
    mailtwist: Mailtwist, store: Engine, account: str, tmp_path: Path
) -> None:
    folder = tmp_path / "mails"
    folder.mkdir()
    for n in (3, 1, 2):
        (folder / f"{n:03}.eml").write_bytes(mail(n, end="\r\n" if n == 2 else "\n"))
    (folder / "notes.txt").write_text("no mail")
    ended = mailtwist("import", account, "Archive/2024", str(folder), "--json")
    assert (ended.status, ended.err) == (0, "")
    assert ended.json["messages"] == 3
    rows = stored(store, "Archive/2024")
    assert [row["subject"] for row in rows] == ["message 1", "message 2", "message 3"]
    assert [row["data"] for row in rows] == [mail(n, end="\r\n") for n in (1, 2, 3)]
    assert [row["internaldate"] // 1_000_000 - MARCH for row in rows] == [1, 2, 3]
    with store.read() as connection:
        found = accounts.find(connection, ADDRESS)
        assert found is not None
        assert "Archive/2024" in mailboxes.subscribed(connection, found.account_id)


def test_a_maildir_keeps_flags_and_times(
    mailtwist: Mailtwist, store: Engine, account: str, tmp_path: Path
) -> None:
    maildir = mailbox.Maildir(tmp_path / "Maildir")
    for n, flags in enumerate(["", "S", "FRS", "P"]):
        message = mailbox.MaildirMessage(mail(n))
        message.set_flags(flags)
        message.set_date(MARCH + n)
        maildir.add(message)
    ended = mailtwist("import", account, "INBOX", str(tmp_path / "Maildir"))
    assert ended.out.startswith("imported 4 messages (")
    rows = {row["subject"]: row for row in stored(store, "INBOX")}
    assert rows["message 0"]["flags"] == 0
    assert rows["message 1"]["flags"] == SEEN
    assert rows["message 2"]["flags"] == SEEN | FLAGGED | ANSWERED
    assert rows["message 3"]["flags"] > 255  # a keyword
    assert rows["message 2"]["internaldate"] == (MARCH + 2) * 1_000_000


def test_an_mbox_is_taken_apart_and_unquoted(
    mailtwist: Mailtwist, store: Engine, account: str, tmp_path: Path
) -> None:
    path = tmp_path / "old.mbox"
    path.write_bytes(
        b"From a@b Fri Mar  1 12:00:07 2024\n"
        + b"Status: RO\n"
        + mail(1, "body\n>From here\n>>From there\nFrom inside a paragraph")
        + b"\nFrom a@b no date\n"
        + mail(2)
    )
    assert mailtwist("import", account, "INBOX", str(path), "--json").json["messages"] == 2
    first, second = stored(store, "INBOX")
    body = first["data"].partition(b"\r\n\r\n")[2]
    assert body == b"body\r\nFrom here\r\n>From there\r\nFrom inside a paragraph\r\n"
    assert (first["flags"], second["flags"]) == (SEEN, 0)
    assert first["internaldate"] == (MARCH + 7) * 1_000_000
    assert second["data"] == mail(2, end="\r\n")


def test_an_empty_mbox_holds_no_message(mailtwist: Mailtwist, account: str, tmp_path: Path) -> None:
    path = tmp_path / "drafts"
    path.touch()
    assert mailtwist("import", account, "INBOX", str(path), "--json").json["messages"] == 0


def test_a_large_message_goes_in_as_chunks(
    mailtwist: Mailtwist, store: Engine, account: str, tmp_path: Path
) -> None:
    path = tmp_path / "large.eml"
    line = b"x" * 70 + b"\r\n"
    path.write_bytes(b"Subject: large\r\n\r\n" + line * 50_000)
    assert mailtwist("import", account, "INBOX", str(path), "--json").status == 0
    (row,) = stored(store, "INBOX")
    assert row["octets"] == path.stat().st_size
    with store.read() as connection:
        end = content.read(connection, row["content_id"], row["octets"] - 72, row["octets"])
    assert end == line


def test_many_paths_and_batches_keep_their_order(
    mailtwist: Mailtwist, store: Engine, account: str, tmp_path: Path
) -> None:
    for folder in ("b", "a"):
        (tmp_path / folder).mkdir()
        for n in range(100):
            (tmp_path / folder / f"{n:03}.eml").write_bytes(mail(n, folder))
    paths = (str(tmp_path / "b"), str(tmp_path / "a" / "000.eml"))
    assert mailtwist("import", account, "INBOX", *paths, "--json").json["messages"] == 101
    rows = stored(store, "INBOX")
    assert [row["uid"] for row in rows] == list(range(1, 102))
    assert rows[-1]["data"].endswith(b"\r\n\r\na\r\n")


def test_a_full_mailbox_ends_the_import_and_says_what_is_in(
    mailtwist: Mailtwist, store: Engine, tmp_path: Path
) -> None:
    mailtwist("account", "add", ADDRESS, "--password", "x", "--quota-messages", "70")
    folder = tmp_path / "mails"
    folder.mkdir()
    for n in range(100):
        (folder / f"{n:03}.eml").write_bytes(mail(n))
    ended = mailtwist("import", ADDRESS, "INBOX", str(folder))
    assert ended.status == 1
    assert "070.eml: Mailbox full; 64 messages were imported before" in ended.err
    assert len(stored(store, "INBOX")) == 64


def test_an_unknown_account_is_refused(mailtwist: Mailtwist, tmp_path: Path) -> None:
    (tmp_path / "a.eml").write_bytes(mail(1))
    ended = mailtwist("import", "x@example.com", "INBOX", str(tmp_path))
    assert (ended.status, ended.err) == (1, "mailtwist: no account x@example.com\n")


def test_on_a_terminal_a_bar_counts_octets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.eml").write_bytes(mail(1))
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    archive = open_archive(tmp_path)
    with importing._progress([archive], quiet=False) as advance:
        advance(archive.octets)
    with importing._progress([archive], quiet=True) as advance:
        advance(archive.octets)
    assert os.linesep in capsys.readouterr().err


@pytest.mark.parametrize(
    "data, expected",
    [
        (b"a\nb\n", b"a\r\nb\r\n"),
        (b"a\r\nb\n", b"a\r\nb\r\n"),
        (b"a\r\nb\r\n", b"a\r\nb\r\n"),
        (b"\n\n", b"\r\n\r\n"),
        (b"a\rb", b"a\rb"),
        (b"", b""),
    ],
)
def test_lines_end_with_crlf(data: bytes, expected: bytes) -> None:
    assert with_crlf(data) == expected
