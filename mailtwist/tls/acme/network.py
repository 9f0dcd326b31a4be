"""HTTP towards an authority, under bounds: of time, of octets, of where it may lead.

The stock class tries again once after a refused nonce, takes answers of any size and follows
redirects; all three are mended here. Importing this costs megabytes: only orders do.

Standards: RFC 8555 §6.1 (https alone), §6.5.1 (retries), §6.6 (rate limits); RFC 9110 §10.2.3.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from ssl import get_default_verify_paths
from typing import Any, Final, cast

import requests
from acme import client, errors, messages
from josepy.json_util import field
from josepy.jwa import ES256
from josepy.jwk import JWK

from mailtwist import __version__

CONNECT_S: Final = 10.0
READ_S: Final = 30.0
MAX_OCTETS: Final = 1 << 20
# An authority under load may refuse several in a row.
NONCE_TRIES: Final = 8
MAX_RETRY_AFTER_S: Final = 7 * 86400.0
_BLOCK: Final = 1 << 14


class Replacing(messages.NewOrder):
    """An order that says which certificate it replaces. RFC 9773 §5"""

    replaces: str = field("replaces", omitempty=True)


class Network(client.ClientNetwork):
    """One for one order. ``retry_after_s``: what the last answer said."""

    def __init__(self, key: JWK, ca_file: str) -> None:
        super().__init__(
            key,
            alg=ES256,
            # It goes to requests as it is, which takes a path too.
            verify_ssl=cast(bool, ca_file or system_authorities()),
            user_agent=f"mailtwist/{__version__}",
        )
        self.retry_after_s = 0.0
        self.replaces = ""

    def post(self, url: str, obj: Any, *arguments: Any, **more: Any) -> requests.Response:
        if self.replaces and isinstance(obj, messages.NewOrder):
            obj = Replacing(identifiers=obj.identifiers, replaces=self.replaces)
        for tries in range(NONCE_TRIES, 0, -1):
            try:
                return self._post_once(url, obj, *arguments, **more)
            except messages.Error as error:
                # RFC 8555 §6.5: what came back with the refusal is not in use yet.
                if error.code != "badNonce" or tries == 1:
                    raise
                self._nonces.clear()
        raise AssertionError("the loop returns or raises")

    def _send_request(self, method: str, url: str, **more: Any) -> requests.Response:
        # RFC 8555 §6.1
        if not url.lower().startswith("https://"):
            raise errors.ClientError(f"it refers to {url[:200]}, which is no https")
        headers = {"User-Agent": self.user_agent, **more.pop("headers", {})}
        response = self.session.request(
            method,
            url,
            **{
                **more,
                "headers": headers,
                "verify": self.verify_ssl,
                "timeout": (CONNECT_S, READ_S),
                "allow_redirects": False,
                "stream": True,
            },
        )
        _read(response)
        response.encoding = "utf-8"
        self.retry_after_s = retry_after(response)
        return response


def _read(response: requests.Response) -> None:
    """Read the whole answer into it, as far as it goes. Raises: ClientError."""
    deadline, octets = time.monotonic() + READ_S, bytearray()
    for block in response.iter_content(_BLOCK):
        octets += block
        if len(octets) > MAX_OCTETS or time.monotonic() > deadline:
            response.close()
            raise errors.ClientError("its answer is too long or too slow")
    # What iter_content leaves behind for those who come later.
    response._content = bytes(octets)


def retry_after(response: requests.Response) -> float:
    """The seconds of a Retry-After field, 0 without one."""
    text = response.headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit() and len(text) < 10:
        return min(float(text), MAX_RETRY_AFTER_S)
    try:
        at = parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return 0.0
    at = at.replace(tzinfo=UTC) if at.tzinfo is None else at
    return min(max((at - datetime.now(UTC)).total_seconds(), 0.0), MAX_RETRY_AFTER_S)


def system_authorities() -> Any:
    """Where OpenSSL finds the authorities that this system trusts; True: those of requests."""
    paths = get_default_verify_paths()
    found = next(
        (each for each in (paths.cafile, paths.capath) if each and Path(each).exists()), ""
    )
    return found or True
