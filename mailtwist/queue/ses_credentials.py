"""What a credential for SES holds, and where it may lead."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from mailtwist.errors import ProtocolViolation
from mailtwist.net.urls import is_public, read_address

MAX_FIELD: Final = 4096
NEEDED: Final = ("access_key", "secret_key", "region")

# It becomes a part of a host name.
_REGION = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")
# They become parts of header fields.
_VISIBLE = re.compile(r"[!-~]+")


@dataclass(frozen=True, slots=True)
class Credential:
    """``endpoint``: a URL in place of Amazon's. ``is_trusted``: it may be on a private network."""

    access_key: str
    secret_key: str = field(repr=False)
    region: str
    token: str = field(default="", repr=False)
    endpoint: str = ""
    is_trusted: bool = False

    @property
    def host(self) -> str:
        return urlsplit(self.endpoint).hostname or f"email.{self.region}.amazonaws.com"

    @property
    def port(self) -> int:
        parts = urlsplit(self.endpoint)
        return parts.port or (80 if parts.scheme == "http" else 443)


def read(name: str, text: str, *, is_trusted: bool) -> Credential:
    """The credential in a row's content, JSON. Raises: ProtocolViolation, which names the field."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise ProtocolViolation(f"credential {name}: its content is no JSON object")
    values = {each: _value(name, each, document) for each in (*NEEDED, "token", "endpoint")}
    for each in NEEDED:
        if not values[each]:
            raise ProtocolViolation(f"credential {name}: {each} is missing")
    if _REGION.fullmatch(values["region"]) is None:
        raise ProtocolViolation(f"credential {name}: invalid value for region")
    _check_endpoint(name, values["endpoint"], is_trusted=is_trusted)
    return Credential(**values, is_trusted=is_trusted)


def _value(name: str, key: str, document: Mapping[str, Any]) -> str:
    value = document.get(key)
    if value is None or value == "":
        return ""
    if not isinstance(value, str) or len(value) > MAX_FIELD or not _VISIBLE.fullmatch(value):
        raise ProtocolViolation(f"credential {name}: invalid value for {key}")
    return value


def _check_endpoint(name: str, endpoint: str, *, is_trusted: bool) -> None:
    if not endpoint:
        return
    try:
        parts = urlsplit(endpoint)
        is_url = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_url = False
    if not is_url or parts.username or parts.query or parts.fragment:
        raise ProtocolViolation(f"credential {name}: invalid value for endpoint: a URL is expected")
    if is_trusted:
        return
    # Under TLS a name that leads to a private address at the next look-up leads to no harm: the
    # service there has no certificate for it.
    if parts.scheme != "https" or not _is_public_name(parts.hostname or ""):
        raise ProtocolViolation(
            f"credential {name}: an endpoint without https, or on a private network, "
            "is for the credentials of administrators"
        )


def _is_public_name(host: str) -> bool:
    try:
        address = read_address(host)
    except ProtocolViolation:
        return False
    if address is not None:
        return is_public(address)
    return "." in host.strip(".") and not host.endswith((".localhost", ".local", ".internal"))
