"""Octets of headers and bodies to text: charsets, RFC 2047 words, folding for search.

Nothing here raises for any octets. What cannot be decoded is replaced, a
charset that is not in the table is guessed. Results never hold NUL or lone
surrogates, which databases refuse.

RFC 2047; RFC 2231 §5.
"""

from __future__ import annotations

import re
import unicodedata
from binascii import Error as Base64Error
from binascii import a2b_base64, a2b_qp
from typing import Final

# A table rather than codecs.lookup: that imports by name whatever a message asks
# for, keeps every unknown name for good, and knows codecs that are no charsets
# (punycode is quadratic, unicode_escape makes surrogates).
_SAME_NAME: Final = (
    *("big5", "cp437", "cp850", "cp852", "cp866", "cp932", "cp949", "euc-jp", "gb18030", "hz"),
    *("iso-2022-jp", "iso-2022-jp-2", "iso-2022-kr", "koi8-r", "koi8-u", "shift_jis"),
    *("utf-7", "utf-16", "utf-16le", "utf-16be", "utf-32"),
)
_CODECS: Final[dict[str, str]] = {
    **{f"iso-8859-{n}": f"iso8859-{n}" for n in range(1, 17) if n != 12},
    **{f"windows-125{n}": f"cp125{n}" for n in range(9)},
    **{f"cp125{n}": f"cp125{n}" for n in range(9)},
    **{name: name for name in _SAME_NAME},
    "big5-hkscs": "big5hkscs",
    "cp936": "gb18030",
    "euc-kr": "cp949",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "hz-gb-2312": "hz",
    "iso-8859-8-i": "iso8859-8",
    "iso8859-1": "iso8859-1",
    "iso8859-15": "iso8859-15",
    "ks_c_5601-1987": "cp949",
    "latin1": "iso8859-1",
    "macintosh": "mac_roman",
    "sjis": "cp932",
    "tis-620": "cp874",
    "windows-31j": "cp932",
    "windows-874": "cp874",
}
_UTF8: Final = frozenset(("utf-8", "utf8"))

_WORD = re.compile(rb"=\?([^?\s*]{1,40})(?:\*[^?\s]{0,40})?\?([bBqQ])\?([^?]*+)\?=")
_SURROGATES = re.compile("[\ud800-\udfff]")


def decode(data: bytes, charset: str) -> str:
    """Text of octets that say they are in ``charset``; empty or unknown: guessed."""
    name = charset.strip().lower()
    codec = _CODECS.get(name)
    if codec is not None:
        text = data.decode(codec, "replace")
        if codec == "utf-7":
            text = _SURROGATES.sub("\ufffd", text)
    elif name in _UTF8:
        text = data.decode("utf-8", "replace")
    else:
        text = _guess(data)
    return text.replace("\0", "") if "\0" in text else text


def _guess(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("iso8859-1")


def decode_words(data: bytes) -> str:
    """The text of an unfolded header value, its encoded words decoded.

    Words that stand inside quotes or without blanks around them are decoded too:
    many senders write them, and search should find them.
    """
    if b"=?" not in data:
        return _guess(data).replace("\0", "")
    parts: list[str] = []
    # Octets of neighbouring words wait for each other: senders cut words in the
    # middle of a character.
    charset = ""
    waiting: list[bytes] = []
    end = 0
    for match in _WORD.finditer(data):
        between = data[end : match.start()]
        end = match.end()
        name = match.group(1).decode("ascii", "replace").lower()
        # RFC 2047 §6.2: blanks between two encoded words are not shown.
        is_neighbour = bool(waiting) and not between.strip()
        if not is_neighbour or name != charset:
            parts.append(decode(b"".join(waiting), charset))
            waiting = []
            if not is_neighbour:
                parts.append(decode(between, ""))
        charset = name
        waiting.append(_decode_octets(match.group(2), match.group(3)))
    parts += (decode(b"".join(waiting), charset), decode(data[end:], ""))
    return "".join(parts)


def _decode_octets(encoding: bytes, data: bytes) -> bytes:
    if encoding in b"qQ":
        return a2b_qp(data, header=True)
    return decode_base64(data)


def decode_base64(data: bytes) -> bytes:
    """Octets of base64, foreign characters skipped and a broken end forgiven."""
    try:
        return a2b_base64(data + b"===")
    except Base64Error:
        # One lone character after the last whole group: drop it.
        return a2b_base64(data.rstrip(b"=\r\n \t")[:-1] + b"===") if data else b""


def fold(text: str) -> str:
    """The form in which texts are compared: case-folded, composed."""
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFC", text.casefold())
