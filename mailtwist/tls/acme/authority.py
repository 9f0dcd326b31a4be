"""One order at a certificate authority, step by step. Every method blocks; no reactor here.

:meth:`Authority.sign_in`, then :meth:`Authority.order`; once its challenges can be answered,
:meth:`Authority.finish` gives the chain. What the authority says no to, and all that goes wrong
on the way, is an :class:`OrderFailed` in words.

Standards: RFC 8555 §7.1.1 (directory), §7.3 (accounts), §7.4 (orders), §7.5 (challenges);
RFC 9773 (renewal information).
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from threading import Event
from typing import Any, Final

import requests
from acme import challenges, client, crypto_util, errors, messages
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from josepy.errors import Error as JoseError
from josepy.jwk import JWK, JWKEC

from mailtwist.tls.acme.network import Network
from mailtwist.tls.acme.values import DNS, HTTP, AccountUnknown, Binding, Challenge, OrderFailed

# From the answer to a challenge to its outcome, and from there to the certificate.
CHECK_S: Final = 120.0
ISSUE_S: Final = 90.0
FIRST_LOOK_S: Final = 0.25
LONGEST_LOOK_S: Final = 10.0

_NEEDED: Final = ("newNonce", "newAccount", "newOrder")
_KINDS: Final[dict[str, type]] = {HTTP: challenges.HTTP01, DNS: challenges.DNS01}


class Authority:
    """``account_key``: PEM. ``stop``: once it is set no further step begins."""

    def __init__(
        self, directory_url: str, account_key: str, *, ca_file: str = "", stop: Event | None = None
    ) -> None:
        self._url = directory_url
        self._key = JWKEC(key=load_pem_private_key(account_key.encode("ascii"), None))
        self._ca_file = ca_file
        self._stop = stop or Event()
        self._order: Any = None
        self._open: list[tuple[Any, Any]] = []

    # -- the account ------------------------------------------------------------------------

    def connect(self) -> None:
        """Read the directory. Raises: OrderFailed."""
        with self._told("the directory"):
            self._network = Network(self._key, self._ca_file)
            directory = client.ClientV2.get_directory(self._url, self._network)
            if not all(hasattr(directory, name) for name in _NEEDED):
                raise errors.ClientError("it is no ACME directory")
            self._client = client.ClientV2(directory, self._network)

    def sign_in(
        self, account_url: str, email: str, *, known_as: str = "", binding: Binding | None = None
    ) -> str:
        """Use an account, registered first when it has no URL yet; its URL.

        ``known_as``: the address that the authority has of it. Raises: OrderFailed.
        """
        with self._told("the account"):
            if not account_url:
                return self._register(email, binding)
            self._use(account_url)
            if email and email != known_as:
                contact = messages.UpdateRegistration.from_data(email=email)
                self._post(account_url, contact)
            return account_url

    def _register(self, email: str, binding: Binding | None) -> str:
        if binding is None and self._client.external_account_required():
            raise OrderFailed(
                f"{self._url} binds accounts to customers:"
                " acme.eab_key_id and acme.eab_hmac_key are missing"
            )
        bound = None
        if binding is not None:
            bound = messages.ExternalAccountBinding.from_data(
                self._key.public_key(), binding.key_id, binding.hmac_key, self._client.directory
            )
        wanted = messages.NewRegistration.from_data(
            email=email, terms_of_service_agreed=True, external_account_binding=bound
        )
        try:
            url = self._client.new_account(wanted).uri
        except errors.ConflictError as error:
            url = error.location  # the key is known; its answer got lost the first time
        self._use(url)
        return str(url)

    def _use(self, account_url: str) -> None:
        self._network.account = messages.RegistrationResource(
            uri=account_url, body=messages.Registration()
        )

    # -- the order --------------------------------------------------------------------------

    def order(
        self, names: Sequence[str], key: bytes, kind: str, *, replaces: str = ""
    ) -> tuple[Challenge, ...]:
        """Order a certificate for the names and a key (PEM); what is still to be proved.

        ``replaces``: the certificate before it, PEM. Raises: OrderFailed, AccountUnknown.
        """
        with self._told("the order"):
            csr = crypto_util.make_csr(key, list(names))
            self._network.replaces = self._renewal_id(replaces)
            try:
                self._order = self._client.new_order(csr)
            except errors.ConflictError:
                # RFC 9773 §5: another order replaces it already.
                self._network.replaces = ""
                self._order = self._client.new_order(csr)
            ordered = {name.removeprefix("*.") for name in names}
            found = [self._challenge(each, kind, ordered) for each in self._order.authorizations]
        return tuple(each for each in found if each is not None)

    def _challenge(
        self, authorization: Any, kind: str, ordered: Collection[str]
    ) -> Challenge | None:
        """How a name is proved; None: it is already. Raises: OrderFailed."""
        body = authorization.body
        name = str(body.identifier.value)
        if name.lower() not in ordered:
            # It would make us write records of others.
            raise OrderFailed(f"the authority asks about {name}, which was not ordered")
        if body.status == messages.STATUS_VALID:
            return None
        chosen = next(
            (each for each in body.challenges if isinstance(each.chall, _KINDS[kind])), None
        )
        if chosen is None:
            raise OrderFailed(f"the authority offers no {kind} for {name}")
        self._open.append((authorization, chosen))
        return Challenge(
            name,
            chosen.chall.encode("token"),
            chosen.chall.key_authorization(self._key),
            _record(chosen.chall, self._key),
        )

    def finish(self) -> str:
        """Have the challenges checked and the certificate issued: the whole chain, PEM.

        Raises: OrderFailed.
        """
        with self._told("the order"):
            try:
                for _, chosen in self._open:
                    self._client.answer_challenge(chosen, chosen.chall.response(self._key))
                deadline = time.monotonic() + CHECK_S
                for authorization, _ in self._open:
                    self._wait_for(authorization, deadline)
            except BaseException:
                self._give_up()
                raise
            return self._issued()

    def _issued(self) -> str:
        """Have the order fulfilled; the chain. Raises: OrderFailed."""
        deadline, pause = time.monotonic() + ISSUE_S, FIRST_LOOK_S
        body, is_finalized = self._look(), False
        while True:
            if body.status == messages.STATUS_VALID and body.certificate:
                return str(self._post(body.certificate).text)
            if body.status == messages.STATUS_INVALID:
                raise self._refused(body.error) if body.error else OrderFailed("the order failed")
            if body.status == messages.STATUS_READY and not is_finalized:
                body, is_finalized = self._client.begin_finalization(self._order).body, True
                continue
            pause = min(max(pause * 1.5, self._network.retry_after_s), LONGEST_LOOK_S)
            if time.monotonic() + pause > deadline:
                raise OrderFailed(f"{self._url}: no certificate within {ISSUE_S:.0f} s")
            self._pause(pause)
            body = self._look()

    def _look(self) -> Any:
        return messages.Order.from_json(self._post(self._order.uri).json())

    def _post(self, url: str, body: Any = None) -> Any:
        """Send an object; None asks for what is there (RFC 8555 §6.3)."""
        return self._network.post(url, body, new_nonce_url=self._client.directory["newNonce"])

    def _pause(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            raise OrderFailed("the server stops")

    def _wait_for(self, authorization: Any, deadline: float) -> None:
        """Look until a name is proved. Raises: OrderFailed."""
        pause = FIRST_LOOK_S
        while True:
            found, _ = self._client.poll(authorization)
            if found.body.status == messages.STATUS_VALID:
                return
            if found.body.status != messages.STATUS_PENDING:
                raise OrderFailed(_reason(found))
            pause = min(max(pause * 1.5, self._network.retry_after_s), LONGEST_LOOK_S)
            if time.monotonic() + pause > deadline:
                raise OrderFailed(
                    f"{found.body.identifier.value}: the authority did not look in time"
                )
            self._pause(pause)

    def _give_up(self) -> None:
        """Withdraw what is still open: authorities count it against us."""
        for authorization, _ in self._open:
            try:
                self._client.deactivate_authorization(authorization)
            except (errors.Error, messages.Error, requests.RequestException):
                continue  # proved or failed by now

    # -- renewal ----------------------------------------------------------------------------

    def renewal_time(self, certificate: str) -> tuple[datetime | None, float]:
        """When it is to be renewed, and after how many seconds to ask again.

        None: the authority does not say. Raises: OrderFailed.
        """
        with self._told("the renewal information"):
            try:
                at, _ = self._client.renewal_time(certificate.encode("ascii"))
            except errors.ARIError as error:
                raise errors.ClientError(str(error.__cause__ or error)) from error
            except x509.ExtensionNotFound as error:
                raise errors.ClientError("the certificate does not say who signed it") from error
        if at is not None and at.tzinfo is None:
            at = at.replace(tzinfo=UTC)
        return at, self._network.retry_after_s

    def _renewal_id(self, certificate: str) -> str:
        """What the order says that it replaces; "" where the authority would not know it."""
        if not certificate or not hasattr(self._client.directory, "renewalInfo"):
            return ""
        try:
            leaf = x509.load_pem_x509_certificate(certificate.encode("ascii"))
            return str(client._renewal_info_path_component(leaf))
        except (ValueError, x509.ExtensionNotFound):
            return ""

    # -- what goes wrong --------------------------------------------------------------------

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """Turn every error of the libraries into one of ours. Raises: OrderFailed."""
        if self._stop.is_set():
            raise OrderFailed("the server stops")
        try:
            yield
        except messages.Error as error:
            raise self._refused(error) from error
        except requests.exceptions.SSLError as error:
            raise OrderFailed(
                f"{self._url}: the authority's own certificate does not hold"
                f" ({_innermost(error)}); see acme.ca_file"
            ) from error
        except requests.RequestException as error:
            raise OrderFailed(f"{self._url} cannot be reached: {_innermost(error)}") from error
        except (errors.Error, JoseError) as error:
            raise OrderFailed(f"{self._url}: {what}: {_said(error)}") from error
        except OSError as error:
            # requests says so when there is no such ca_file.
            raise OrderFailed(f"acme.ca_file: {error}") from error
        # The library trusts the shape of what it is given.
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise OrderFailed(f"{self._url}: {what} cannot be read", detail=str(error)) from error

    def _refused(self, error: Any) -> OrderFailed:
        text = f"{error.code or error.typ}: {error.detail or error.title or 'no reason'}"
        for each in error.subproblems or ():
            name = each.identifier.value if each.identifier is not None else ""
            text += f"; {name}: {each.detail}"
        if error.code == "accountDoesNotExist":
            return AccountUnknown(text)
        pause = self._network.retry_after_s if error.code == "rateLimited" else 0.0
        return OrderFailed(text, retry_after_s=pause)


def _record(challenge: Any, key: JWK) -> str:
    """What a TXT record proves with, whichever kind the challenge is. RFC 8555 §8.4"""
    same = challenges.DNS01(token=challenge.token)
    return str(same.validation(key))


def _reason(authorization: Any) -> str:
    """Why a name was not proved."""
    name = authorization.body.identifier.value
    for each in authorization.body.challenges:
        if each.error is not None:
            error = each.error
            return f"{name}: {each.chall.typ}: {error.code or error.typ}: {error.detail}"
    return f"{name}: the authorization is {authorization.body.status.name}"


def _said(error: BaseException) -> str:
    """An error of the library in words; some hold the answer they stumbled on."""
    first = error.args[0] if error.args else ""
    if isinstance(first, tuple) and first:
        first = first[0]
    if isinstance(first, requests.Response):
        return f"answered {first.status_code} {first.reason}"
    return str(first) or str(error) or type(error).__name__


def _innermost(error: BaseException) -> str:
    """The cause that says most; the outer ones repeat addresses of objects."""
    seen: BaseException = error
    while True:
        inner = seen.__cause__ or getattr(seen, "reason", None)
        if inner is None and seen.args and isinstance(seen.args[0], BaseException):
            inner = seen.args[0]
        if not isinstance(inner, BaseException) or inner is seen:
            break
        seen = inner
    text = str(seen)
    # urllib3 puts "HTTPSConnection(host=...): " before what happened.
    return text.rpartition("): ")[2] if ": " in text and "object at 0x" in text else text
