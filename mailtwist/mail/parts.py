"""Where the parts of a message lie, in the compact text that its row keeps.

One line for each part, in the order of the message, a part before those inside
it: ``depth start header_end end kind type encoding charset``. Offsets count
from the start of the content; trace headers stored before it are not in them.

RFC 9051 §6.4.5 numbers the parts; :func:`find` and :func:`section` follow it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final


class Kind(Enum):
    """How a part goes on below its header."""

    LEAF = "l"
    MULTIPART = "m"
    MESSAGE = "r"


@dataclass(slots=True, eq=True)
class Part:
    """One part: its header is ``[start:header_end]``, its body ``[header_end:end]``.

    ``content_type`` (``text/plain``), ``encoding`` and ``charset`` are in lower
    case; the latter two may be empty. A part of kind MESSAGE has one child, the
    message inside.
    """

    start: int
    header_end: int
    end: int
    kind: Kind
    content_type: str
    encoding: str = ""
    charset: str = ""
    children: list[Part] = field(default_factory=list)

    @property
    def header(self) -> slice:
        return slice(self.start, self.header_end)

    @property
    def body(self) -> slice:
        return slice(self.header_end, self.end)

    @property
    def is_message(self) -> bool:
        return self.kind is Kind.MESSAGE

    def walk(self) -> Iterator[Part]:
        """This part and all below it, in the order of the message."""
        waiting = [self]
        while waiting:
            part = waiting.pop()
            yield part
            waiting.extend(reversed(part.children))


_KINDS: Final = {kind.value: kind for kind in Kind}


def encode_line(
    depth: int,
    offsets: tuple[int, int, int],
    kind: Kind,
    described: tuple[str, str, str],
) -> bytes:
    """One part as its line; ``described``: type, encoding, charset, none with blanks."""
    content_type, encoding, charset = described
    return (
        f"{depth} %d %d %d {kind.value} {content_type} {encoding or '-'} {charset or '-'}\n"
        % offsets
    ).encode("ascii", "replace")


def encode(root: Part) -> bytes:
    """The text of a whole tree."""
    lines: list[bytes] = []
    waiting = [(0, root)]
    while waiting:
        depth, part = waiting.pop()
        offsets = (part.start, part.header_end, part.end)
        described = (part.content_type, part.encoding, part.charset)
        lines.append(encode_line(depth, offsets, part.kind, described))
        waiting.extend((depth + 1, child) for child in reversed(part.children))
    return b"".join(lines)


def decode(data: bytes) -> Part:
    """The tree of a text; the root is the message itself."""
    above: list[Part] = []
    for line in data.decode("ascii").splitlines():
        depth_text, start, header_end, end, kind, content_type, encoding, charset = line.split(" ")
        part = Part(
            int(start),
            int(header_end),
            int(end),
            _KINDS[kind],
            content_type,
            "" if encoding == "-" else encoding,
            "" if charset == "-" else charset,
        )
        depth = int(depth_text)
        del above[depth:]
        if above:
            above[-1].children.append(part)
        above.append(part)
    return above[0]


def find(root: Part, numbers: Sequence[int]) -> Part | None:
    """The part with this section number; none: the message. None: no such part."""
    part = root
    inside = True  # whether numbers count what is inside ``part`` taken as a message
    for number in numbers:
        if not inside:
            if part.kind is Kind.LEAF:
                return None
            if part.is_message:
                part = part.children[0]
        inside = False
        if part.kind is Kind.MULTIPART:
            if not 1 <= number <= len(part.children):
                return None
            part = part.children[number - 1]
        elif number != 1:
            # RFC 9051 §6.4.5: a message that is no multipart has one part, itself.
            return None
    return part


def section(root: Part, numbers: Sequence[int], text: str = "") -> tuple[int, int] | None:
    """The octets ``[start:end]`` that BODY[numbers.text] names, None for no such part.

    ``text`` is empty, HEADER, TEXT or MIME in capitals (RFC 9051 §6.4.5).
    """
    part = find(root, numbers)
    if part is None:
        return None
    if not numbers and not text:
        return part.start, part.end
    if not text:
        return part.header_end, part.end
    if text == "MIME":
        return part.start, part.header_end
    if numbers:
        # HEADER and TEXT of a part speak of the message in it, of nothing else.
        if not part.is_message:
            return None
        part = part.children[0]
    if text == "HEADER":
        return part.start, part.header_end
    return part.header_end, part.end


def leaves(root: Part, main_type: str) -> Iterable[Part]:
    """The leaf parts of one main type, e.g. ``text``."""
    prefix = main_type + "/"
    return (p for p in root.walk() if p.kind is Kind.LEAF and p.content_type.startswith(prefix))
