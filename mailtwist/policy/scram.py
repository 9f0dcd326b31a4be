"""SCRAM-SHA-256 as a server speaks it: the messages, and what proves the password.

The client shows that it has the password and learns that the server has its keys; neither is
sent. With ``-PLUS`` both also show that they end the same TLS connection, so that nobody sits
between them. A client that could do so, but was told that the server can't, notices: the
server refuses its ``y`` where -PLUS was offered.

Plain functions on octets; nothing here waits.

Standards: RFC 5802; RFC 7677; RFC 9266 (tls-exporter); RFC 5929 §4 (tls-server-end-point).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from dataclasses import dataclass
from typing import Final

from mailtwist.errors import ProtocolViolation
from mailtwist.policy.passwords import Scram

MAX_NONCE: Final = 512
MAX_NAME: Final = 1024

# RFC 5802 §7
_NONCE: Final = re.compile(rb"[\x21-\x2b\x2d-\x7e]+")
_BINDING: Final = re.compile(rb"p=([A-Za-z0-9.-]+)")
_UNESCAPED: Final = re.compile(r"=(?!2C|3D)")


@dataclass(frozen=True, slots=True)
class Opening:
    """What the client said first. ``binding``: a type's name, "" for none."""

    username: str
    nonce: bytes
    gs2_header: bytes
    bare: bytes  # client-first-message-bare
    authorization: str = ""
    binding: str = ""
    could_bind: bool = False  # it would have, had we offered it


def read_opening(message: bytes) -> Opening:
    """Read a client-first-message. Raises: ProtocolViolation."""
    flag, authorization, rest = _split(message, 2)
    binding = _BINDING.fullmatch(flag)
    if binding is None and flag not in {b"n", b"y"}:
        raise malformed()
    if authorization and not authorization.startswith(b"a="):
        raise malformed()
    # Extensions that must be understood come first (m=), and we understand none.
    fields = rest.split(b",")
    if len(fields) < 2 or not fields[0].startswith(b"n=") or not fields[1].startswith(b"r="):
        raise malformed()
    nonce = fields[1][2:]
    if _NONCE.fullmatch(nonce) is None or len(nonce) > MAX_NONCE:
        raise malformed()
    return Opening(
        username=_name(fields[0][2:]),
        nonce=nonce,
        gs2_header=message[: len(message) - len(rest)],
        bare=rest,
        # "a=" alone is against the grammar, and some clients mean nobody by it.
        authorization=_name(authorization[2:]) if authorization[2:] else "",
        binding=binding[1].decode("ascii") if binding else "",
        could_bind=flag == b"y",
    )


def first_answer(opening: Opening, ours: bytes, keys: Scram) -> bytes:
    """The server-first-message; ``ours``: our part of the nonce."""
    salt = base64.b64encode(keys.salt)
    return b"r=%b,s=%b,i=%d" % (opening.nonce + ours, salt, keys.iterations)


@dataclass(frozen=True, slots=True)
class Proof:
    """What the client's last message proves to who has the keys."""

    message: bytes  # AuthMessage
    proof: bytes

    def holds(self, keys: Scram) -> bool:
        # RFC 5802 §3
        signature = hmac.digest(keys.stored_key, self.message, "sha256")
        client_key = bytes(a ^ b for a, b in zip(self.proof, signature, strict=True))
        return hmac.compare_digest(hashlib.sha256(client_key).digest(), keys.stored_key)

    def last_answer(self, keys: Scram) -> bytes:
        """The server-final-message: we have the keys of this password."""
        signature = hmac.digest(keys.server_key, self.message, "sha256")
        return b"v=" + base64.b64encode(signature)


@dataclass(frozen=True, slots=True)
class Ending:
    """What the client said last."""

    binding: bytes  # the GS2 header as it was, and the channel's data
    nonce: bytes
    proof: Proof


def read_ending(message: bytes, opening: Opening, first: bytes) -> Ending:
    """Read a client-final-message. Raises: ProtocolViolation."""
    without_proof, separator, spelled = message.rpartition(b",p=")
    fields = without_proof.split(b",")
    if not separator or len(fields) < 2:
        raise malformed()
    if not fields[0].startswith(b"c=") or not fields[1].startswith(b"r="):
        raise malformed()
    proof = _base64(spelled)
    if len(proof) != hashlib.sha256().digest_size:
        raise malformed()
    # RFC 5802 §3
    auth_message = b",".join((opening.bare, first, without_proof))
    return Ending(_base64(fields[0][2:]), fields[1][2:], Proof(auth_message, proof))


def malformed() -> ProtocolViolation:
    # RFC 4954 §4: a response that can't be read.
    return ProtocolViolation("Invalid SCRAM message", status="5.5.2")


def _split(message: bytes, count: int) -> list[bytes]:
    parts = message.split(b",", count)
    if len(parts) != count + 1:
        raise malformed()
    return parts


def _name(octets: bytes) -> str:
    """Read a saslname: =2C is a comma, =3D an equals sign. Raises: ProtocolViolation."""
    try:
        text = octets.decode("utf-8")
    except UnicodeDecodeError:
        raise malformed() from None
    if not text or len(octets) > MAX_NAME or "\0" in text or _UNESCAPED.search(text):
        raise malformed()
    return text.replace("=2C", ",").replace("=3D", "=")


def _base64(octets: bytes) -> bytes:
    try:
        return binascii.a2b_base64(octets, strict_mode=True)
    except ValueError:
        raise malformed() from None
