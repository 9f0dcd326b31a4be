"""The host names that one certificate is for, as a person lists them: separated by commas."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Final

from mailtwist.errors import ProtocolViolation
from mailtwist.mail.address import fold_domain

MAX_NAMES: Final = 100
MAX_NAME: Final = 253
_LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")


def host_names(text: str) -> tuple[str, ...]:
    """Host names as A-labels, IP addresses, and ``*.example.com``; each of them once.

    Raises: ProtocolViolation that names the one that is none.
    """
    found = dict.fromkeys(_host_name(part.strip()) for part in text.split(",") if part.strip())
    if not found:
        raise ProtocolViolation("there is no host name")
    if len(found) > MAX_NAMES:
        raise ProtocolViolation(f"there are more than {MAX_NAMES} host names")
    return tuple(found)


def is_address(name: str) -> bool:
    """Whether a name of such a list is an IP address."""
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _host_name(part: str) -> str:
    if is_address(part):
        return str(ip_address(part))
    bare = part.removesuffix(".")
    wildcard, bare = ("*.", bare[2:]) if bare.startswith("*.") else ("", bare)
    try:
        folded = fold_domain(bare)
    except ProtocolViolation as error:
        raise _no_host_name(part) from error
    labels = folded.split(".")
    if len(folded) > MAX_NAME or not all(_LABEL.fullmatch(label) for label in labels):
        raise _no_host_name(part)
    if wildcard and len(labels) < 2:
        raise _no_host_name(part)
    return wildcard + folded


def _no_host_name(part: str) -> ProtocolViolation:
    return ProtocolViolation(f"{part[:100]} is no host name")
