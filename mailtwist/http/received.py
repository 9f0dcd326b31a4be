"""What Twisted received, as text, and the headers of its answer.

Octets that are not UTF-8 are no error: they are replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import unquote_to_bytes

from mailtwist.http.exchange import phrase

Headers = Iterable[tuple[str, str]]


def path_of(request: Any) -> str:
    path: bytes = request.path
    return path.decode("utf-8", "replace")


def routed_path_of(request: Any) -> str:
    """The path as routes are found by it: escapes undone, one slash before it."""
    path: bytes = request.path
    return "/" + unquote_to_bytes(path).decode("utf-8", "replace").lstrip("/")


def is_text(path: bytes) -> bool:
    """Whether a path is UTF-8 once its escapes are undone."""
    try:
        unquote_to_bytes(path).decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def query_of(request: Any) -> bytes:
    uri: bytes = request.uri
    return uri.partition(b"?")[2]


def header_of(request: Any) -> Callable[[str], str]:
    def header(name: str) -> str:
        # Asked in octets: a value that is not UTF-8 is no error.
        value: bytes | None = request.getHeader(name.encode("ascii"))
        return value.decode("utf-8", "replace") if value is not None else ""

    return header


def set_status(request: Any, status: int) -> None:
    """With the words of the registry: Twisted lacks those of later codes, 429 for one."""
    request.setResponseCode(status, phrase(status).encode("ascii"))


def set_headers(request: Any, headers: Headers) -> None:
    for name, value in headers:
        request.setHeader(name.encode("ascii"), value.encode("utf-8"))


def add_header(request: Any, name: str, value: str) -> None:
    """Add to a header that is a list."""
    there = request.responseHeaders.getRawHeaders(name.encode("ascii"), [])
    set_headers(request, [(name, ", ".join([*(each.decode("utf-8") for each in there), value]))])
