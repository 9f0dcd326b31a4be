"""Which certificate a TLS handshake gets, by the name that the client asks for.

One :class:`Certificates` serves every listener and STARTTLS: what its ``creator`` and
:meth:`Certificates.of` give stays good for the life of the process, while
:meth:`Certificates.replace` swaps what they hand out. The next handshake uses the new set;
sessions that run keep theirs. All contexts are in memory, so a handshake reads no file.

Standards: RFC 8446; RFC 5246; RFC 6066 §3 (SNI); RFC 8314 §3; RFC 9325 §3, §4.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from zope.interface import implementer

from mailtwist.errors import ConfigError

# TLS 1.2 with forward secrecy and AEAD alone; OpenSSL orders TLS 1.3's own list itself.
# RFC 9325 §4.2
CIPHERS: Final = b"ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:!aNULL:!eNULL:!PSK"

MIN_VERSIONS: Final = {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


def make_context(chain: bytes, key: bytes, min_version: str = "1.2") -> SSL.Context:
    """Build a server context from PEM text: the certificate with its chain, and its key.

    Takes up to 50 ms for an RSA key. Raises: ValueError that says what is wrong.
    """
    certificates = x509.load_pem_x509_certificates(chain)
    private_key = load_private_key(key)
    if not _belong_together(certificates[0], private_key):
        raise ValueError("the key does not belong to the certificate")
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    # RFC 8996 §4, §5
    context.set_min_proto_version(MIN_VERSIONS[min_version])
    context.set_cipher_list(CIPHERS)
    context.set_options(
        # RFC 9325 §3.3, §3.5
        SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION | SSL.OP_CIPHER_SERVER_PREFERENCE
    )
    # An idle session gives its 34 KB of buffers back.
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    # Tickets carry what a resumption needs; a cache here would only grow.
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.use_certificate(certificates[0])
    for issuer in certificates[1:]:
        context.add_extra_chain_cert(issuer)
    context.use_privatekey(private_key)
    return context


def load_private_key(key: bytes) -> PrivateKey:
    """Read a PEM key without passphrase. Raises: ValueError."""
    try:
        loaded = load_pem_private_key(key, password=None)
    except TypeError as error:
        raise ValueError("the key has a passphrase") from error
    if not isinstance(loaded, PrivateKey):
        raise ValueError("the key is of a kind that TLS certificates do not use")
    return loaded


def names_of(chain: bytes) -> list[str]:
    """List the DNS names that the first certificate is for, in lower case."""
    certificate = x509.load_pem_x509_certificates(chain)[0]
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        common = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        return [str(name.value).lower() for name in common]
    return [name.lower() for name in extension.value.get_values_for_type(x509.DNSName)]


def _belong_together(certificate: x509.Certificate, key: PrivateKey) -> bool:
    def spelled(public: Any) -> bytes:
        octets: bytes = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return octets

    return spelled(certificate.public_key()) == spelled(key.public_key())


@implementer(IOpenSSLServerConnectionCreator)
class ConnectionCreator:
    """Makes the OpenSSL side of each new TLS connection, from the set of the moment."""

    def __init__(self, default: SSL.Context, by_name: Mapping[str, SSL.Context]) -> None:
        self.replace(default, by_name)

    def replace(self, default: SSL.Context, by_name: Mapping[str, SSL.Context]) -> None:
        """Use another set from the next handshake on; names in lower case, ``*.x`` for any of x."""
        for context in {default, *by_name.values()}:
            context.set_tlsext_servername_callback(self._choose)
        self._by_name = dict(by_name)
        self._default = default

    def serverConnectionForTLS(self, protocol: object) -> SSL.Connection:  # noqa: N802
        return SSL.Connection(self._default, None)

    def _choose(self, connection: SSL.Connection) -> None:
        asked = connection.get_servername()
        if asked is None:
            return
        chosen = self._find(asked.decode("latin-1"))
        # Asked for a name that nobody has, a listener stays with its own.
        if chosen is not None and chosen is not connection.get_context():
            connection.set_context(chosen)

    def context_for(self, name: str) -> SSL.Context:
        """Choose by exact name, then by a wildcard for its first label, else the default."""
        return self._find(name) or self._default

    def _find(self, name: str) -> SSL.Context | None:
        # RFC 6066 §3; RFC 9525 §6.3
        name = name.lower().rstrip(".")
        return self._by_name.get(name) or self._by_name.get("*." + name.partition(".")[2])


@implementer(IOpenSSLServerConnectionCreator)
class NamedCreator:
    """The same for a listener with a name: whoever asks for none gets its certificate."""

    def __init__(self, creator: ConnectionCreator, name: str) -> None:
        self._creator = creator
        self._name = name

    def serverConnectionForTLS(self, protocol: object) -> SSL.Connection:  # noqa: N802
        return SSL.Connection(self._creator.context_for(self._name), None)


class Certificates:
    """The set of certificates in use: the default one and those chosen by name."""

    def __init__(self, chain: bytes, key: bytes, min_version: str = "1.2") -> None:
        """Start with the default certificate alone. Raises: ValueError."""
        self._min_version = min_version
        context = make_context(chain, key, min_version)
        self.creator = ConnectionCreator(context, dict.fromkeys(names_of(chain), context))

    def of(self, name: str) -> ConnectionCreator | NamedCreator:
        """The creator of a listener with this name; "": it has none."""
        return NamedCreator(self.creator, name) if name else self.creator

    def replace(self, default: tuple[bytes, bytes], *others: tuple[bytes, bytes]) -> None:
        """Swap in new pairs of (chain, key), all or none. Raises: ValueError.

        Of two for one name the earlier of ``others`` counts, and the default one last.
        """
        pairs = (*others, default)
        contexts = {pair: make_context(*pair, self._min_version) for pair in set(pairs)}
        by_name: dict[str, SSL.Context] = {}
        for pair in pairs:
            for name in names_of(pair[0]):
                by_name.setdefault(name, contexts[pair])
        self.creator.replace(contexts[default], by_name)


def read_pair(cert_file: str, key_file: str) -> tuple[bytes, bytes]:
    """Read the files that ``tls.cert_file`` and ``tls.key_file`` name.

    An empty ``key_file`` means that the certificate's file holds the key too.
    Raises: ConfigError that names the key.
    """
    chain = _read("tls.cert_file", cert_file)
    key = _read("tls.key_file", key_file) if key_file else chain
    try:
        make_context(chain, key)
    except ValueError as error:
        raise ConfigError(
            f"tls.cert_file {cert_file} and tls.key_file {key_file or cert_file}: {error}"
        ) from error
    return chain, key


def _read(setting: str, path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(1 << 20)
    except OSError as error:
        raise ConfigError(f"{setting}: cannot read {path}: {error.strerror}") from error
