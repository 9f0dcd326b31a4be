"""TLS towards other servers: one handshake for every policy, and what came of it in words.

A handshake always looks whether the certificate holds, and never ends for it: whoever asked
for it decides by `problem`, before a word is said. So the text can name the reason, and
what is good shows as verified even where nobody insisted.

RFC 8446; RFC 6066 §3 (SNI); RFC 9525 §6; RFC 7435 (opportunistic security).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from cryptography import x509
from OpenSSL import SSL
from service_identity import CertificateError, VerificationError
from service_identity.cryptography import (
    verify_certificate_hostname,
    verify_certificate_ip_address,
)
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from zope.interface import implementer

from mailtwist.mail.host_names import is_address

# Authorities change on disk; a set is read anew after this.
LIFETIME_S: Final = 3600.0
# More names than that tell nobody more.
MAX_NAMES: Final = 3

_UNPRINTABLE = re.compile("[^!-~]")

# Of X509_V_ERR_*; what is not named here is rare.
_PROBLEMS: Final = {
    7: "has a signature that does not hold",
    9: "is not valid yet",
    10: "has expired",
    18: "is self-signed",
    19: "is signed by an authority that is not trusted",
    20: "is signed by an authority that is not trusted",
    21: "is signed by an authority that is not trusted",
    23: "is revoked",
    24: "is signed by something that is no authority",
    26: "is not for a server",
    66: "has too weak a key",
    67: "is signed with too weak a key",
    68: "is signed with too weak an algorithm",
}


class Authorities:
    """The contexts for client handshakes, one for each set of authorities."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._contexts: dict[str, tuple[float, SSL.Context]] = {}

    def known(self, ca_file: str) -> SSL.Context | None:
        """The context for a file of authorities ("": the system's), when it is in memory."""
        built, context = self._contexts.get(ca_file, (0.0, None))
        return context if self._seconds() - built < LIFETIME_S else None

    def keep(self, ca_file: str, context: SSL.Context) -> None:
        self._contexts[ca_file] = (self._seconds(), context)


def make_client_context(ca_file: str) -> SSL.Context:
    """Build a client context. Reads files, up to 50 ms. Raises: ValueError in words."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    # RFC 8996 §4, §5
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    if ca_file:
        try:
            context.load_verify_locations(ca_file)
        except SSL.Error as error:
            raise ValueError(f"cannot read the authorities in {ca_file}") from error
    else:
        context.set_default_verify_paths()
    return context


@implementer(IOpenSSLClientConnectionCreator)
class Handshake:
    """One handshake with a host of this name (or address). Use it once, for `startTLS`."""

    def __init__(self, context: SSL.Context, name: str) -> None:
        self._context = context
        self._name = name.rstrip(".")
        self._problems: list[tuple[int, int]] = []
        self._connection: SSL.Connection | None = None

    def clientConnectionForTLS(self, _protocol: object) -> SSL.Connection:  # noqa: N802
        connection = SSL.Connection(self._context, None)
        connection.set_verify(SSL.VERIFY_PEER, self._note)
        # RFC 6066 §3: names only, never addresses.
        if self._name.isascii() and not is_address(self._name):
            connection.set_tlsext_host_name(self._name.encode("ascii"))
        self._connection = connection
        return connection

    def _note(
        self, _connection: SSL.Connection, _certificate: Any, problem: int, depth: int, ok: int
    ) -> bool:
        """OpenSSL calls this for each certificate of the chain; the handshake goes on."""
        if not ok:
            self._problems.append((problem, depth))
        return True

    def finish(self) -> tuple[str, str]:
        """After the handshake: facts for people, and why the certificate does not hold ("").

        "TLSv1.3 TLS_AES_256_GCM_SHA384 verified"; once.
        """
        connection, self._connection = self._connection, None
        assert connection is not None
        problem = self._problem(connection)
        facts = f"{connection.get_protocol_version_name()} {connection.get_cipher_name()}"
        return f"{facts} {'not verified' if problem else 'verified'}", problem

    def _problem(self, connection: SSL.Connection) -> str:
        try:
            certificate = connection.get_peer_certificate(as_cryptography=True)
            return self._judge(certificate)
        except Exception:  # of whatever a hostile certificate makes its parsers raise
            return "the certificate cannot be read"

    def _judge(self, certificate: x509.Certificate | None) -> str:
        if certificate is None:
            return "there is no certificate"
        if self._problems:
            number, depth = self._problems[0]
            whose = "the certificate" if depth == 0 else "a certificate of its chain"
            return f"{whose} {_PROBLEMS.get(number, f'does not hold (OpenSSL error {number})')}"
        return _name_problem(certificate, self._name)


def _name_problem(certificate: x509.Certificate, name: str) -> str:
    verify = verify_certificate_ip_address if is_address(name) else verify_certificate_hostname
    try:
        verify(certificate, name)
    except VerificationError:
        return f"the certificate is for {_names(certificate)}, not for {name}"
    except CertificateError:
        return f"the certificate names nobody that can be compared with {name}"
    return ""


def _names(certificate: x509.Certificate) -> str:
    """Whom a certificate is for. A stranger wrote it: a few names, printable and short."""
    extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    names = [str(name.value) for name in extension.value]
    shown = ", ".join(_UNPRINTABLE.sub("?", name)[:100] for name in names[:MAX_NAMES])
    return shown + (" and others" if len(names) > MAX_NAMES else "")
