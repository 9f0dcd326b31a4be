"""The links of a mail that a reader could follow, in the order in which he meets them.

Of text whatever begins like a web address, of HTML where ``a`` and ``area`` lead. Pictures and
style sheets are no links. Work is linear in the input.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape
from typing import Final

MAX_LINKS: Final = 100
MAX_LENGTH: Final = 2_000  # characters of one link; what is longer is none

_URL = re.compile(r"\bhttps?://[^\s<>\"`{}|\\^\x00-\x20\x7f\u2028\u2029]++", re.I)
# "_" and "-" are not among them: a token may end so.
_ENDS: Final = frozenset(".,;:!?'*\u2026\u2019\u201d\u00bb\u3002\uff0c")
_PAIRS: Final = {")": "(", "]": "["}

# An unclosed tag matches as well, so that what was looked at is never looked at again.
_TAG = re.compile(r"<a(?:rea)?(?=[\s/])((?:[^\"'<>]++|\"[^\"]*+\"|'[^']*+')*+)", re.I)
_ATTRIBUTE = re.compile(
    r"([^\s\"'<>/=]++)(?:\s*+=\s*+(?:\"([^\"]*+)\"|'([^']*+)'|([^\s\"'<>]++)))?+"
)
_NOT_IN_URL = re.compile(r"[\t\r\n]")


def links(text: str, html: str = "") -> list[str]:
    """At most ``MAX_LINKS`` of them, each once, those of the text first."""
    found: dict[str, None] = {}
    for link in (*_of_text(text), *_of_html(html)):
        if len(link) <= MAX_LENGTH:
            found.setdefault(link)
    return list(found)[:MAX_LINKS]


def _of_text(text: str) -> Iterator[str]:
    for match in _URL.finditer(text):
        link = _without_end(match[0])
        if not link.endswith("//"):
            yield link


def _without_end(link: str) -> str:
    """Cut what belongs to the sentence around: marks, and a bracket that opened before."""
    count = {mark: link.count(mark) for mark in "()[]"}
    end = len(link)
    while end:
        last = link[end - 1]
        if last in _PAIRS and count[last] > count[_PAIRS[last]]:
            count[last] -= 1
        elif last not in _ENDS:
            break
        end -= 1
    return link[:end]


def _of_html(html: str) -> Iterator[str]:
    for match in _TAG.finditer(_without_comments(html)):
        link = _target(match[1])
        if link[:8].lower().startswith(("http://", "https://")):
            yield link


def _target(attributes: str) -> str:
    for match in _ATTRIBUTE.finditer(attributes):
        name, double, single, bare = match.groups("")
        if name.lower() == "href":
            value = unescape((double or single or bare)[: 2 * MAX_LENGTH])
            # As browsers read it: WHATWG URL §4.4.
            return _NOT_IN_URL.sub("", value.strip()).replace(" ", "%20")
    return ""


def _without_comments(html: str) -> str:
    pieces: list[str] = []
    at = 0
    while (start := html.find("<!--", at)) >= 0:
        pieces.append(html[at:start])
        end = html.find("-->", start)
        at = end + 3 if end >= 0 else len(html)
    pieces.append(html[at:])
    return "".join(pieces)
