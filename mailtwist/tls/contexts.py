"""Which certificate a TLS handshake gets, by the name that the client asks for.

One :class:`Certificates` serves every listener and STARTTLS: what its ``creator`` and
:meth:`Certificates.of` give stays good for the life of the process, while what they hand out is
swapped. The next handshake uses the new set; sessions that run keep theirs. Beside the few that
are always in memory there may be a :class:`mailtwist.tls.shelf.Shelf` of many: a handshake that
asks for one which is not in memory yet waits for it, and the reactor does not.

Standards: RFC 8446; RFC 5246; RFC 6066 §3 (SNI); RFC 8314 §3; RFC 9325 §3, §4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from weakref import WeakSet

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from zope.interface import implementer

from mailtwist.tls import hello, pem
from mailtwist.tls.shelf import Shelf

# TLS 1.2 with forward secrecy and AEAD alone; OpenSSL orders TLS 1.3's own list itself.
# RFC 9325 §4.2
CIPHERS: Final = b"ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:!aNULL:!eNULL:!PSK"

# So much of what a client says is held back while its certificate is loaded: more than any hello.
MAX_HELD: Final = 1 << 16

MIN_VERSIONS: Final = {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}


def make_context(
    chain: bytes, key: bytes, min_version: str = "1.2", *, was_checked: bool = False
) -> SSL.Context:
    """Build a server context from PEM text: the certificate with its chain, and its key.

    ``was_checked``: the key was, when it came; that takes up to 50 ms for an RSA key, all else
    1 ms. Raises: ValueError that says what is wrong.
    """
    certificates = x509.load_pem_x509_certificates(chain)
    private_key = (
        load_pem_private_key(key, None, unsafe_skip_rsa_key_validation=True)
        if was_checked
        else pem.read_key(key)
    )
    assert isinstance(private_key, pem.PrivateKey)
    if not pem.belong_together(certificates[0], private_key):
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


def names_of(chain: bytes) -> list[str]:
    """List the DNS names that the first certificate is for, in lower case."""
    return list(pem.names_of(x509.load_pem_x509_certificates(chain)[0]))


class PatientConnection(SSL.Connection):
    """Holds back what a client says first until the certificate that it asks for is there.

    ``name``: of the listener, whose certificate is for those who ask for none that we have.
    """

    def __init__(self, creator: ConnectionCreator, name: str, protocol: Any) -> None:
        super().__init__(creator.context_for(name), None)
        self._creator = creator
        self._name = name
        self._protocol = protocol
        self._held: bytes = b""
        self._needed = 0
        self._is_open = self._is_loading = self._is_waiting = False

    def bio_write(self, buf: Any) -> int:
        if not self._is_open:
            # What does not fit is lost: nobody says so much before the server has answered.
            self._held += bytes(buf[: MAX_HELD - len(self._held)])
            return len(buf)
        return super().bio_write(buf) if buf else 0

    def do_handshake(self) -> None:
        if not self._is_open and not self._is_loading:
            self._look()
        if not self._is_open:
            raise SSL.WantReadError
        super().do_handshake()

    def _look(self) -> None:
        if len(self._held) < self._needed:
            return
        try:
            asked = hello.server_name(self._held)
        except hello.Incomplete as error:
            self._needed = error.octets
            return
        missing = [name for name in (asked, self._name) if self._creator.misses(name)]
        if not missing:
            self._open()
            return
        self._is_loading = True
        loading = Deferred.fromCoroutine(self._fetch(missing))
        loading.addBoth(self._loaded)
        self._is_waiting = not self._is_open

    async def _fetch(self, names: Sequence[str]) -> None:
        for name in names:
            await self._creator.fetch(name)

    def _loaded(self, _: object) -> None:
        protocol = self._protocol
        self.set_context(self._creator.context_for(self._name))
        self._open()
        if self._is_waiting and protocol is not None and protocol.getHandle() is self:
            # Twisted asks again only when something comes, and all has come already.
            protocol.dataReceived(b"")

    def _open(self) -> None:
        held, self._held, self._is_open = self._held, b"", True
        self._protocol = None  # which refers to us
        if held:
            super().bio_write(held)


@implementer(IOpenSSLServerConnectionCreator)
class ConnectionCreator:
    """Makes the OpenSSL side of each new TLS connection, from the set of the moment."""

    def __init__(
        self,
        default: SSL.Context,
        by_name: Mapping[str, SSL.Context],
        shelf: Shelf | None = None,
    ) -> None:
        self._shelf = shelf
        self._adopted: WeakSet[SSL.Context] = WeakSet()
        self.replace(default, by_name)

    def replace(self, default: SSL.Context, by_name: Mapping[str, SSL.Context]) -> None:
        """Use another set from the next handshake on; names in lower case, ``*.x`` for any of x."""
        for context in {default, *by_name.values()}:
            self.adopt(context)
        self._by_name = dict(by_name)
        self._default = default

    def adopt(self, context: SSL.Context) -> SSL.Context:
        """Let connections that begin with this context change to the one that is asked for."""
        # One that has begun a connection cannot be changed any more.
        if context not in self._adopted:
            self._adopted.add(context)
            context.set_tlsext_servername_callback(self._choose)
        return context

    def serverConnectionForTLS(self, protocol: object) -> SSL.Connection:  # noqa: N802
        return self.connection("", protocol)

    def connection(self, name: str, protocol: Any) -> SSL.Connection:
        """One of a listener with this name; "": it has none."""
        if self._shelf is None or not len(self._shelf):
            return SSL.Connection(self.context_for(name), None)
        return PatientConnection(self, name, protocol)

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
        for each in _spellings(name):
            found = self._by_name.get(each)
            if found is None and self._shelf is not None:
                found = self._shelf.find(each)
            if found is not None:
                return found
        return None

    def misses(self, name: str) -> bool:
        """Whether the certificate for a name is known and not in memory yet."""
        spelled = self._on_shelf(name)
        return bool(spelled) and self._shelf is not None and self._shelf.misses(spelled)

    async def fetch(self, name: str) -> None:
        """Have it in memory, if it can be had."""
        if self._shelf is not None:
            await self._shelf.fetch(self._on_shelf(name))

    def _on_shelf(self, name: str) -> str:
        """The name or the wildcard that the shelf has a certificate for, if that counts."""
        for each in _spellings(name):
            if each in self._by_name:
                return ""
            if self._shelf is not None and self._shelf.has(each):
                return each
        return ""


def _spellings(name: str) -> tuple[str, str]:
    # RFC 6066 §3; RFC 9525 §6.3
    name = name.lower().rstrip(".")
    return name, f"*.{name.partition('.')[2]}"


@implementer(IOpenSSLServerConnectionCreator)
class NamedCreator:
    """The same for a listener with a name: whoever asks for none gets its certificate."""

    def __init__(self, creator: ConnectionCreator, name: str) -> None:
        self._creator = creator
        self._name = name

    def serverConnectionForTLS(self, protocol: object) -> SSL.Connection:  # noqa: N802
        return self._creator.connection(self._name, protocol)


class Certificates:
    """The set of certificates in use: the default one, and those chosen by name."""

    def __init__(
        self, chain: bytes, key: bytes, min_version: str = "1.2", *, shelf: Shelf | None = None
    ) -> None:
        """Start with the default certificate alone. Raises: ValueError."""
        self.min_version = min_version
        context = make_context(chain, key, min_version)
        self.creator = ConnectionCreator(context, dict.fromkeys(names_of(chain), context), shelf)

    def of(self, name: str) -> ConnectionCreator | NamedCreator:
        """The creator of a listener with this name; "": it has none."""
        return NamedCreator(self.creator, name) if name else self.creator

    def replace(self, default: tuple[bytes, bytes], *others: tuple[bytes, bytes]) -> None:
        """Swap in new pairs of (chain, key), all or none. Raises: ValueError.

        Of two for one name the earlier of ``others`` counts, and the default one last.
        """
        pairs = (*others, default)
        contexts = {pair: make_context(*pair, self.min_version) for pair in set(pairs)}
        by_name: dict[str, SSL.Context] = {}
        for pair in pairs:
            for name in names_of(pair[0]):
                by_name.setdefault(name, contexts[pair])
        self.creator.replace(contexts[default], by_name)
