"""Whether mail can leave: DNS, the smart host or the mail hosts of others; and the Redis."""

from __future__ import annotations

import importlib.util
import smtplib
import socket
import ssl
from collections.abc import Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mailtwist.cli.doctor.examination import Check, Finding, fail, ok, warn
from mailtwist.config import Settings
from mailtwist.config.names import join_host_port
from mailtwist.config.redis import RedisServer, read_redis

if TYPE_CHECKING:
    from mailtwist.net.stub import Stub
    from mailtwist.queue.values import Route

PATIENCE_S: Final = 5.0
# DNS: for one try, of which there are two.
TRY_S: Final = 2.0
DELIVERY_S: Final = 20.0
MAX_ROUTES: Final = 10
MAX_HOSTS: Final = 3
# Nobody's (RFC 2606 §2): where mail goes that no row of the settings speaks of.
_ELSEWHERE: Final = "elsewhere.invalid"


def resolver_of(settings: Settings) -> Stub:
    from mailtwist.net.stub import Stub

    return Stub(settings.outbound.resolver, try_s=TRY_S, tries=2)


def resolver(settings: Settings) -> Iterator[Finding]:
    """Whether DNS answers; that a name does not exist is an answer."""
    from mailtwist.net.stub import DnsError, LookupFailed

    asked = next(iter(settings.domains), settings.hostname)
    whose = settings.outbound.resolver or "the system's server"
    try:
        resolver_of(settings).query(asked, "MX")
    except LookupFailed as error:
        if is_sandbox(settings):
            yield warn("dns", f"{whose}: {error}")
        else:
            yield fail("dns", f"{whose}: {error}", "see outbound.resolver, /etc/resolv.conf")
        return
    except DnsError:
        pass
    yield ok("dns", f"{whose} answers")


def is_sandbox(settings: Settings) -> bool:
    from mailtwist.cli import sandbox

    return settings.dev_mode or sandbox.is_running(Path(settings.data_dir))


# -- the next hop ---------------------------------------------------------------------------


def delivery(settings: Settings, probe: str) -> Iterator[Check]:
    """Whether every next hop can be had; nothing is sent. ``probe``: a domain elsewhere.

    A check for each of them, for strangers may answer as slowly as they like.
    """
    from mailtwist.queue.routes import Router

    if is_sandbox(settings):
        yield Check("delivery", lambda: [ok("delivery", "dev_mode is on: nothing leaves")])
        return
    for route in _named(settings):
        yield Check(_name(route), partial(_called, route), DELIVERY_S)
    if not Router(settings).route(_ELSEWHERE).host:
        name = f"delivery port {settings.outbound.port}"
        yield Check(name, partial(_mail_hosts, name, settings, probe), DELIVERY_S)


def _named(settings: Settings) -> list[Route]:
    """The hosts that the settings name, each once."""
    from mailtwist.queue.routes import Router
    from mailtwist.store.queue.values import LOCAL

    router = Router(settings)
    asked = [_ELSEWHERE, *settings.transports, *settings.outbound.mx_override]
    if settings.delivery.mode == "lmtp":
        asked.append(LOCAL)
    routes = [router.route(each.removeprefix(".").replace("*", _ELSEWHERE)) for each in asked]
    return list({each.key: each for each in routes if each.host}.values())[:MAX_ROUTES]


def _name(route: Route) -> str:
    return f"delivery {join_host_port(route.host, route.port)}"


def _called(route: Route) -> Iterator[Finding]:
    yield _answer(route)


def _answer(route: Route) -> Finding:
    """Call a host as the queue would: TLS, login, and then good-bye."""
    name = _name(route)
    try:
        with closing(_client(route)) as client:
            said = _opened(client, route)
    except smtplib.SMTPAuthenticationError as error:
        text = _text(error.smtp_error)
        advice = "check user and password; some providers want an app password, without spaces"
        return fail(name, f"the login is refused: {error.smtp_code} {text}", advice)
    except smtplib.SMTPResponseException as error:
        return fail(name, f"it answers {error.smtp_code} {_text(error.smtp_error)}")
    except ssl.SSLCertVerificationError as error:
        return fail(name, f"its certificate does not hold: {error.verify_message}", _TLS_ADVICE)
    except ssl.SSLError as error:
        return fail(name, f"no TLS: {error.reason or error}")
    except smtplib.SMTPNotSupportedError as error:
        return fail(name, str(error), _TLS_ADVICE)
    except smtplib.SMTPException as error:
        return fail(name, _text(str(error)))
    except OSError as error:
        advice = f"is the name right, and is port {route.port} open towards it?"
        return fail(name, f"cannot be reached: {error.strerror or error}", advice)
    return ok(name, said)


_TLS_ADVICE: Final = "see relay.tls, relay.verify and relay.ca_file, or ?tls= in transports"


def _client(route: Route) -> smtplib.SMTP:
    if route.tls.implicit:
        return smtplib.SMTP_SSL(route.host, route.port, timeout=PATIENCE_S, context=_context(route))
    kind = _Lmtp if route.is_lmtp else smtplib.SMTP
    return kind(route.host, route.port, timeout=PATIENCE_S)


class _Lmtp(smtplib.LMTP):
    def __init__(self, host: str, port: int, timeout: float) -> None:
        # smtplib's own takes the time-out for sockets of a file system alone.
        self.timeout = timeout
        super().__init__(host, port, timeout=timeout)


def _context(route: Route) -> ssl.SSLContext:
    from mailtwist.queue.values import Tls

    context = ssl.create_default_context(cafile=route.tls.ca_file or None)
    if route.tls.level is not Tls.VERIFY:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _opened(client: smtplib.SMTP, route: Route) -> str:
    from mailtwist.queue.values import Tls

    client.ehlo_or_helo_if_needed()
    words = ["TLS"] if route.tls.implicit else []
    wants = route.tls.level is not Tls.NONE and not route.tls.implicit
    if wants and client.has_extn("starttls"):
        client.starttls(context=_context(route))
        client.ehlo_or_helo_if_needed()
        words.append("STARTTLS")
    elif wants and route.tls.level is not Tls.OPPORTUNISTIC:
        raise smtplib.SMTPNotSupportedError("it offers no STARTTLS, and TLS is insisted on")
    if route.login is not None:
        client.login(route.login.username, route.login.password)
        words.append("login")
    with suppress(smtplib.SMTPException, OSError):
        client.quit()
    return f"answers ({', '.join(words)})" if words else "answers"


def _mail_hosts(name: str, settings: Settings, probe: str) -> Iterator[Finding]:
    """Whether the port of mail hosts is open towards the world: many networks close it."""
    from mailtwist.net.stub import DnsError

    try:
        found = resolver_of(settings).query(probe, "MX").values
    except DnsError as error:
        advice = (
            "does the resolver know names elsewhere? Another one: mailtwist doctor --probe DOMAIN"
        )
        yield fail(name, f"no mail host of {probe} to try: {error}", advice)
        return
    refused = "it takes no mail"
    for mx in found[:MAX_HOSTS]:
        try:
            said = _greeting(settings, mx.name)
        except (OSError, DnsError, smtplib.SMTPException) as error:
            refused = f"{mx.name}: {_text(str(error))}"
        else:
            yield ok(name, f"open: {mx.name} says {said}")
            return
    advice = "many providers close it: ask yours, or set a smart host (relay.host)"
    yield fail(name, f"no mail host of {probe} could be reached ({refused})", advice)


def _greeting(settings: Settings, host: str) -> str:
    address = resolver_of(settings).query(host, "A").values[0]
    with smtplib.SMTP(timeout=PATIENCE_S / MAX_HOSTS) as client:
        code, text = client.connect(address, settings.outbound.port)
        if code != 220:
            raise smtplib.SMTPResponseException(code, text)
        return f"{code} {_text(text)}"


def _text(said: bytes | str) -> str:
    """What a stranger said, on one line."""
    from mailtwist.cli.queued import clean

    text = said.decode("utf-8", "replace") if isinstance(said, bytes) else said
    return clean(" ".join(text.split()))[:200]


# -- Redis ----------------------------------------------------------------------------------


def redis(settings: Settings) -> Iterator[Finding]:
    """Whether it answers; the server does without it."""
    if not settings.redis_url:
        return
    server = read_redis(settings.redis_url)
    name = f"redis {server.path or server.host}"
    advice = "limits hold meanwhile, counted by each node for itself"
    if importlib.util.find_spec("txredisapi") is None:
        yield warn(name, "the server cannot ask it: txredisapi is not installed", _REDIS_EXTRA)
        return
    try:
        with closing(_redis_link(server)) as link:
            said = _pinged(link, server)
    except (OSError, ValueError) as error:
        yield warn(name, f"cannot be reached: {error}", advice)
        return
    if said == "+PONG":
        yield ok(name, "answers")
    else:
        yield warn(name, f"it says: {server.hidden(said)}", advice)


_REDIS_EXTRA: Final = "install mailtwist with the extra redis (docs/redis.md)"


def _redis_link(server: RedisServer) -> socket.socket:
    if server.path:
        link = socket.socket(socket.AF_UNIX)
        link.settimeout(PATIENCE_S)
        link.connect(server.path)
        return link
    link = socket.create_connection((server.host, server.port), PATIENCE_S)
    if server.is_tls:
        return ssl.create_default_context().wrap_socket(link, server_hostname=server.host)
    return link


def _pinged(link: socket.socket, server: RedisServer) -> str:
    """What it says to the last of what the server begins with, or to what it refuses."""
    file: Any = link.makefile("rb")
    name = [server.username] if server.username else []
    commands = [["AUTH", *name, server.password]] if server.password else []
    commands += [["SELECT", str(server.database)]] if server.database else []
    commands.append(["PING"])
    for command in commands:
        link.sendall(_resp(command))
        said = file.readline(500).decode("utf-8", "replace").strip()
        if not said.startswith("+"):
            return _text(said) or "nothing"
    return str(said)


def _resp(words: list[str]) -> bytes:
    """A command as Redis reads it: an array of bulk strings."""
    octets = [word.encode("utf-8") for word in words]
    return b"*%d\r\n" % len(octets) + b"".join(b"$%d\r\n%b\r\n" % (len(o), o) for o in octets)
