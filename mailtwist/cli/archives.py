"""Messages from files: a Maildir, an mbox, a folder of .eml files, or one such file.

Each comes as octets with CRLF line ends, the flags that its place tells, and
the time it arrived. Files are read one after another; nothing but the message
at hand is in memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path

from mailtwist.errors import MailError
from mailtwist.mail.flags import ANSWERED, DELETED, DRAFT, FLAGGED, SEEN

# One message is read whole; what is longer than the store takes is not read at all.
MAX_OCTETS = 1 << 30
_BARE_LF = re.compile(rb"(?<!\r)\n")
_FROM_LINE = re.compile(rb"From \S+ +(\S.*\d{4})\s*$")
_QUOTED_FROM = re.compile(rb"^>(>*From )", re.MULTILINE)

MAILDIR_FLAGS = {"D": DRAFT, "F": FLAGGED, "R": ANSWERED, "S": SEEN, "T": DELETED}
MAILDIR_KEYWORDS = {"P": "$Forwarded"}
# The Status and X-Status fields that mbox programs keep.
STATUS_FLAGS = {"R": SEEN, "A": ANSWERED, "F": FLAGGED, "D": DELETED, "T": DRAFT}
_STATUS = re.compile(rb"^(?:X-)?Status:[ \t]*([A-Z]*)[ \t]*\r?$", re.MULTILINE | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Archived:
    """One message of an archive."""

    data: bytes
    origin: str  # for error texts
    octets_read: int  # of the archive, for the progress bar
    flags: int = 0
    keywords: tuple[str, ...] = ()
    arrived_at: int | None = None  # microseconds; None: ask the Date field


@dataclass(frozen=True, slots=True)
class Archive:
    """The files of one PATH on the command line."""

    kind: str  # maildir | eml | mbox
    files: tuple[Path, ...]

    @property
    def octets(self) -> int:
        return sum(path.stat().st_size for path in self.files)

    def messages(self) -> Iterator[Archived]:
        read = {"maildir": _maildir_message, "eml": _eml_message}.get(self.kind)
        for path in self.files:
            if read is None:
                yield from _mbox_messages(path)
            else:
                yield read(path)


def open_archive(path: Path) -> Archive:
    """Find out what ``path`` is. Raises ``MailError`` where it holds no messages."""
    if path.is_file():
        with path.open("rb") as file:
            # Mail programs leave an mbox without messages as an empty file.
            kind = "mbox" if file.read(5) in (b"From ", b"") else "eml"
        return Archive(kind, (path,))
    folders = [path / name for name in ("cur", "new") if (path / name).is_dir()]
    if folders:
        found = [each for folder in folders for each in folder.iterdir() if each.is_file()]
        # Maildir names begin with the time of delivery.
        return Archive("maildir", tuple(sorted(found, key=lambda each: each.name)))
    found = [each for each in path.iterdir() if each.suffix.lower() == ".eml" and each.is_file()]
    if not found:
        raise MailError(f"{path}: neither a Maildir nor an mbox nor a folder of .eml files")
    return Archive("eml", tuple(sorted(found, key=lambda each: each.name)))


def with_crlf(data: bytes) -> bytes:
    """The same lines, each ended by CRLF."""
    if data.count(b"\n") == data.count(b"\r\n"):
        return data
    return _BARE_LF.sub(b"\r\n", data)


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(MAX_OCTETS + 1)
    if len(data) > MAX_OCTETS:
        raise MailError(f"{path}: is larger than 1 GiB")
    return data


def _modified_at(path: Path) -> int:
    return path.stat().st_mtime_ns // 1000


def _maildir_message(path: Path) -> Archived:
    data = _read(path)
    _, _, info = path.name.rpartition(":2,")
    letters = info if ":2," in path.name else ""
    flags = 0
    for letter in letters:
        flags |= MAILDIR_FLAGS.get(letter, 0)
    keywords = tuple(name for letter, name in MAILDIR_KEYWORDS.items() if letter in letters)
    return Archived(with_crlf(data), str(path), len(data), flags, keywords, _modified_at(path))


def _eml_message(path: Path) -> Archived:
    data = _read(path)
    # Nothing of a folder of files tells flags; copying changed their times.
    return Archived(with_crlf(data), str(path), len(data))


def _mbox_messages(path: Path) -> Iterator[Archived]:
    """The messages of an mbox: each begins with a "From " line after an empty one."""
    lines: list[bytes] = []
    from_line = b""
    size = 0
    n = 0
    is_boundary = True
    with path.open("rb") as file:
        for line in file:
            if is_boundary and line.startswith(b"From "):
                if from_line:
                    n += 1
                    yield _mbox_message(lines, from_line, f"{path}: message {n}", size)
                lines, from_line, size = [], line, 0
            else:
                lines.append(line)
            size += len(line)
            if size > MAX_OCTETS:
                raise MailError(f"{path}: message {n + 1} is larger than 1 GiB")
            is_boundary = line in (b"\n", b"\r\n")
    if from_line:
        yield _mbox_message(lines, from_line, f"{path}: message {n + 1}", size)


def _mbox_message(lines: list[bytes], from_line: bytes, origin: str, size: int) -> Archived:
    if lines and lines[-1] in (b"\n", b"\r\n") and len(lines) > 1:
        # The empty line before the next "From " belongs to the mbox.
        lines.pop()
    data = with_crlf(_QUOTED_FROM.sub(rb"\1", b"".join(lines)))
    header = data.partition(b"\r\n\r\n")[0]
    flags = 0
    for status in _STATUS.findall(header):
        for letter in status.decode("ascii").upper():
            flags |= STATUS_FLAGS.get(letter, 0)
    return Archived(data, origin, size, flags, (), _from_line_time(from_line))


def _from_line_time(line: bytes) -> int | None:
    match = _FROM_LINE.match(line)
    if match is None:
        return None
    words = match[1].decode("ascii", "replace").split()
    try:
        # "Sat Jan  3 01:05:34 1996" -> "3 Jan 1996 01:05:34"
        _, month, day, time, year = words
        moment = parsedate_to_datetime(f"{day} {month} {year} {time} +0000")
        return int(moment.timestamp() * 1_000_000)
    except (ValueError, TypeError, OverflowError):
        return None
