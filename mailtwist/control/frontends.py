"""Which factory serves a listener, by its protocol.

A front-end is imported when a listener asks for it: who runs no HTTP needs no klein.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from mailtwist.config import Listener

if TYPE_CHECKING:
    from mailtwist.control.runtime import Runtime


def make(runtime: Runtime, listener: Listener) -> Any:
    """The factory of a listener that opens."""
    return _MAKERS[listener.protocol](runtime, listener)


def configure(runtime: Runtime, factory: Any, listener: Listener) -> None:
    """Give the factory of a listener that runs other settings, of its own or the server's."""
    _CONFIGURERS[listener.protocol](runtime, factory, listener)


def _smtp(runtime: Runtime, listener: Listener) -> Any:
    from mailtwist.smtp.service import make_factory

    return make_factory(listener, _smtp_parts(runtime))


def _configure_smtp(runtime: Runtime, factory: Any, listener: Listener) -> None:
    factory.configure(listener, _smtp_parts(runtime))


def _smtp_parts(runtime: Runtime) -> Any:
    from mailtwist.smtp.service import Parts

    return Parts(
        intake=runtime.mail.intake,
        rates=runtime.mail.rates,
        authenticator=runtime.authenticator,
        tls=runtime.certificates,
        settings=runtime.settings,
        clock=runtime.reactor,
        counters=runtime.counters,
    )


def _imap(runtime: Runtime, listener: Listener) -> Any:
    from mailtwist.imap.service import make_factory

    return make_factory(listener, _imap_parts(runtime))


def _configure_imap(runtime: Runtime, factory: Any, listener: Listener) -> None:
    factory.configure(listener, _imap_parts(runtime))


def _imap_parts(runtime: Runtime) -> Any:
    from mailtwist.imap.service import Parts

    return Parts(
        database=runtime.database,
        snapshots=runtime.snapshots,
        authenticator=runtime.authenticator,
        tls=runtime.certificates,
        settings=runtime.settings,
        clock=runtime.reactor,
        counters=runtime.counters,
    )


def _http(runtime: Runtime, listener: Listener) -> Any:
    from mailtwist.http.service import make_factory

    return make_factory(
        runtime.rest.front(runtime.health.check),
        reactor=runtime.reactor,
        counters=runtime.counters,
        max_clients=listener.max_clients,
    )


def _redirect(runtime: Runtime, listener: Listener) -> Any:
    from mailtwist.http.redirect import Redirect
    from mailtwist.http.service import make_factory

    return make_factory(
        Redirect(runtime.reactor, runtime.rest.challenges),
        reactor=runtime.reactor,
        counters=runtime.counters,
        max_clients=listener.max_clients,
    )


def _configure_http(runtime: Runtime, factory: Any, listener: Listener) -> None:
    factory.max_clients = listener.max_clients


Make = Callable[["Runtime", Listener], Any]
Configure = Callable[["Runtime", Any, Listener], None]

_MAKERS: Final[dict[str, Make]] = {
    "smtp": _smtp,
    "submission": _smtp,
    "submissions": _smtp,
    "lmtp": _smtp,
    "imap": _imap,
    "imaps": _imap,
    "http": _http,
    "https": _http,
    "http-redirect": _redirect,
}
_CONFIGURERS: Final[dict[str, Configure]] = {
    "smtp": _configure_smtp,
    "submission": _configure_smtp,
    "submissions": _configure_smtp,
    "lmtp": _configure_smtp,
    "imap": _configure_imap,
    "imaps": _configure_imap,
    "http": _configure_http,
    "https": _configure_http,
    "http-redirect": _configure_http,
}
