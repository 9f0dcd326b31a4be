"""Users that an LDAP server knows: search for the entry, then bind as it.

Each login has a connection of its own, which ends with it: encrypted first, then bound to
search, then bound as the user. Nothing of it is remembered, so that a password changed there
counts at once. An empty password never gets here: a server takes it for "nobody", and says yes
(RFC 4513 §5.1.2).

Standards: RFC 4511; RFC 4513; RFC 4515.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol, wrapClientTLS
from twisted.internet.ssl import Certificate, optionsForClientTLS, trustRootFromCertificates
from twisted.logger import Logger

from mailtwist.errors import ConfigError, TemporaryFailure
from mailtwist.policy.backends.file import own_addresses
from mailtwist.policy.lockout import ACCOUNT
from mailtwist.store import logins
from mailtwist.store.accounts import Verifier
from mailtwist.store.engine import Connection
from mailtwist.store.logins import Active

if TYPE_CHECKING:
    from mailtwist.config.ldap import Ldap as Settings

log = Logger()

# Logins at once: each waits for a server, none needs our processor.
AT_ONCE: Final = 16
# What one answer may be: an entry's name.
MAX_BUFFER: Final = 1 << 18
_PORTS: Final = {"ldap": 389, "ldaps": 636}
_PLACEHOLDER: Final = re.compile("%([und%])")
# RFC 4515 §3
_ESCAPED: Final = re.compile(r"[*()\\\0]")


def escaped(text: str) -> str:
    """Write a value so that it can stand in a filter and mean nothing but itself."""
    return _ESCAPED.sub(lambda found: f"\\{ord(found[0]):02x}", text)


def filter_for(pattern: str, username: str) -> str:
    """Fill a filter in: %u the login, %n before its @, %d behind it, %% a percent sign."""
    local_part, _, domain = username.rpartition("@")
    words = {"u": username, "n": local_part or username, "d": domain, "%": "%"}
    return _PLACEHOLDER.sub(lambda found: escaped(words[found[1]]), pattern)


class Ldap:
    """The users of one LDAP server. Raises: ConfigError for settings that can't be used."""

    scope = ACCOUNT

    def __init__(self, settings: Settings, *, reactor: Any) -> None:
        self._settings = settings
        self._reactor = reactor
        place = urlsplit(settings.url)
        self._host = place.hostname or "localhost"
        self._is_ldaps = place.scheme.lower() == "ldaps"
        try:
            self._port = place.port or _PORTS[place.scheme.lower()]
        except ValueError as error:
            raise ConfigError(f"ldap.url: {error}") from error
        self._tls: Any = None
        if self._is_ldaps or settings.starttls:
            self._tls = optionsForClientTLS(self._host, trustRoot=_roots(settings.ca_file))
        _parsed(filter_for(settings.filter, "user@example.com"))

    # -- in a read of the store -----------------------------------------------------------

    def find(self, connection: Connection, username: str) -> Active | None:
        """Anybody may be there; only an account that is disabled here shuts him out."""
        number = logins.mailbox_of(connection, username)
        return None if number is None else Active(number, username, 0)

    def verifiers(self, _connection: Connection, _who: Active) -> Sequence[Verifier]:
        return ()

    def unknown(self) -> Sequence[Verifier]:
        return ()

    def addresses(self, connection: Connection, who: Active) -> frozenset[str]:
        return own_addresses(connection, who)

    # -- over the network -----------------------------------------------------------------

    async def ask(self, username: str, password: str) -> bool:
        """Whether this is the password of the one entry that the filter finds.

        Raises: TemporaryFailure (454 4.7.0) when the server says neither yes nor no in time.
        """
        asking = Deferred.fromCoroutine(self._ask(username, password))
        asking.addTimeout(self._settings.timeout, self._reactor)
        try:
            return bool(await asking)
        except (TimeoutError, CancelledError):
            raise _unavailable("it did not answer in time") from None

    async def _ask(self, username: str, password: str) -> bool:
        try:
            client = await self._connect()
        except CancelledError:
            raise
        except Exception as error:
            raise _unavailable(f"no connection: {error}") from error
        try:
            if self._tls is not None and not self._is_ldaps:
                await client.startTLS(self._tls)
            if self._settings.bind_dn:
                await client.bind(self._settings.bind_dn, self._settings.password)
            name = await self._search(client, username)
            # Somebody who is not there takes as many steps as somebody who is.
            return await _binds(client, name or self._nobody(), password) and name is not None
        except CancelledError:
            raise
        except Exception as error:
            raise _unavailable(f"{type(error).__name__}: {error}") from error
        finally:
            client.transport.loseConnection()

    def _nobody(self) -> str:
        return f"cn=nobody-of-that-name,{self._settings.base_dn}"

    async def _connect(self) -> Any:
        endpoint: Any = HostnameEndpoint(self._reactor, self._host, self._port)
        if self._is_ldaps:
            endpoint = wrapClientTLS(self._tls, endpoint)
        return await connectProtocol(endpoint, _make_client())

    async def _search(self, client: Any, username: str) -> str | None:
        """The name of the one entry that the filter finds."""
        from ldaptor.protocols import pureldap

        request = pureldap.LDAPSearchRequest(
            baseObject=self._settings.base_dn,
            scope=pureldap.LDAP_SCOPE_wholeSubtree,
            derefAliases=pureldap.LDAP_DEREF_neverDerefAliases,
            sizeLimit=2,
            timeLimit=int(self._settings.timeout),
            filter=_parsed(filter_for(self._settings.filter, username)),
            attributes=[b"1.1"],  # RFC 4511 §4.5.1.8: none
        )
        names = await _names(client, request)
        if len(names) > 1:
            log.warn("ldap.filter finds more than one entry for {username}", username=username)
        return names[0] if len(names) == 1 else None


def _make_client() -> Any:
    """An LDAP connection with bounds, whose server can't slip in what TLS did not protect."""
    from ldaptor.protocols.ldap import ldapclient

    class Client(ldapclient.LDAPClient):  # type: ignore[misc, unused-ignore]
        def dataReceived(self, data: bytes) -> None:  # noqa: N802
            if len(self.buffer) + len(data) > MAX_BUFFER:
                self.transport.abortConnection()
                return
            try:
                super().dataReceived(data)
            except Exception as error:
                log.info("an LDAP server sent nonsense", reason=str(error)[:200])
                self.transport.abortConnection()

        def _cbStartTLS(self, message: Any, context: Any) -> Any:  # noqa: N802
            if self.buffer:
                raise ValueError("octets in the clear behind the answer to STARTTLS")
            return super()._cbStartTLS(message, context)

    return Client()


async def _binds(client: Any, name: str, password: str) -> bool:
    """Whether a bind succeeds. Raises: LDAPException for what is no answer to that."""
    from ldaptor.protocols.ldap import ldaperrors

    assert password, "an empty password binds as nobody"
    refusals = (
        ldaperrors.LDAPInvalidCredentials,
        ldaperrors.LDAPInappropriateAuthentication,
        ldaperrors.LDAPNoSuchObject,
        ldaperrors.LDAPUnwillingToPerform,
        ldaperrors.LDAPConstraintViolation,
        ldaperrors.LDAPInsufficientAccessRights,
    )
    try:
        await client.bind(name, password)
    except refusals:
        return False
    return True


async def _names(client: Any, request: Any) -> list[str]:
    """The names of the entries that a search finds. Raises: LDAPException."""
    from ldaptor.protocols import pureldap
    from ldaptor.protocols.ldap import ldaperrors

    names: list[str] = []
    done: Deferred[int] = Deferred()

    def take(response: Any) -> bool:
        if isinstance(response, pureldap.LDAPSearchResultEntry):
            names.append(bytes(response.objectName).decode("utf-8"))
        if not isinstance(response, pureldap.LDAPSearchResultDone):
            return False  # an entry, or a reference, which is not followed
        if not done.called:
            done.callback(response.resultCode)
        return True

    sent = client.send_multiResponse(request, take)
    # It ends by itself only with the connection.
    sent.addErrback(lambda failure: None if done.called else done.errback(failure))
    code = await done
    if code not in {ldaperrors.Success.resultCode, ldaperrors.LDAPSizeLimitExceeded.resultCode}:
        raise ldaperrors.get(code, "the search failed")
    return names


def _parsed(text: str) -> Any:
    """Raises: ConfigError for what is no filter."""
    try:
        from ldaptor import ldapfilter
    except ImportError:
        raise ConfigError(
            "auth.backend: ldap needs ldaptor: pip install 'mailtwist[ldap]'"
        ) from None
    try:
        return ldapfilter.parseFilter(text)
    except ldapfilter.InvalidLDAPFilter as error:
        raise ConfigError(f"ldap.filter: {error}") from error


def _roots(ca_file: str) -> Any:
    """Whose certificates are believed. Raises: ConfigError."""
    if not ca_file:
        return None
    try:
        with open(ca_file, "rb") as file:
            text = file.read(1 << 22)
    except OSError as error:
        raise ConfigError(f"ldap.ca_file: cannot read {ca_file}: {error.strerror}") from error
    end = b"-----END CERTIFICATE-----"
    blocks = [block + end for block in text.split(end)[:-1]]
    try:
        certificates = [Certificate.loadPEM(block) for block in blocks]
    except Exception:
        certificates = []
    if not certificates:
        raise ConfigError(f"ldap.ca_file: {ca_file} holds no certificates")
    return trustRootFromCertificates(certificates)


def _unavailable(detail: str) -> TemporaryFailure:
    # RFC 4954 §4.7.6
    log.warn("the LDAP server can't be asked: {detail}", detail=detail)
    return TemporaryFailure(
        "Temporary authentication failure",
        detail=f"LDAP: {detail}",
        code=454,
        status="4.7.0",
        imap_code="UNAVAILABLE",
    )
