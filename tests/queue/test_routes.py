"""Which way mail leaves, from the configuration as an administrator writes it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mailtwist.config import Settings, load
from mailtwist.queue import tls_policy
from mailtwist.queue.routes import Router
from mailtwist.queue.values import Login, Route, Tls, TlsPolicy
from mailtwist.store.queue.values import LOCAL
from tests.support.now import now

SMART_HOST = {"SMTP_RELAY_HOST": "smart.test"}
LOGIN = {"SMTP_RELAY_USERNAME": "me@smart.test", "SMTP_RELAY_PASSWORD": "secret"}


def settings_of(environ: dict[str, str] | None = None, **given: Any) -> Settings:
    """Keys with __ for the dot."""
    variables = {
        f"MAILTWIST_{key.replace('__', '_').upper()}": json.dumps(value)
        if isinstance(value, dict)
        else str(value)
        for key, value in given.items()
    }
    return load(None, {**(environ or {}), **variables})


def route(destination: str, environ: dict[str, str] | None = None, **given: Any) -> Route:
    return Router(settings_of(environ, **given)).route(destination)


@pytest.mark.parametrize("destination", ["far.test", "[192.0.2.1]", "[IPv6:2001:db8::1]"])
def test_without_a_smart_host_mail_goes_to_the_destination_itself(destination: str) -> None:
    found = route(destination)
    assert found == Route(destination, "", 25, tls=TlsPolicy(Tls.OPPORTUNISTIC))
    assert route(destination, outbound__port=2625).port == 2625


TRANSPORTS = {
    "exact.test": "smtp://exact-host:26",
    ".exact.test": "smtp://below-host",
    ".deep.exact.test": "lmtp://deep-host",
    "direct.test": "mx",
    "*": "smtps://any-host",
}
OVERRIDES = {"own.test": "10.0.0.7", "exact.test": "10.0.0.8", "*": "10.0.0.9:2525"}


@pytest.mark.parametrize(
    "destination, where",
    [
        ("exact.test", ("exact-host", 26)),
        ("a.exact.test", ("below-host", 25)),
        ("b.a.exact.test", ("below-host", 25)),
        ("deep.exact.test", ("below-host", 25)),
        ("x.deep.exact.test", ("deep-host", 24)),
        ("notexact.test", ("any-host", 465)),
        ("own.test", ("10.0.0.7", 25)),
        ("direct.test", ("10.0.0.9", 2525)),
        ("[192.0.2.1]", ("any-host", 465)),
    ],
)
def test_the_nearest_row_decides(destination: str, where: tuple[str, int]) -> None:
    found = route(destination, SMART_HOST, transports=TRANSPORTS, outbound__mx_override=OVERRIDES)
    assert (found.host, found.port) == where


@pytest.mark.parametrize(
    "destination, host",
    [
        ("own.test", "10.0.0.7"),  # a row of its own comes before the smart host
        ("far.test", "smart.test"),  # which asks for no MX, so "*" has nothing to replace
        ("direct.test", "10.0.0.9"),
    ],
)
def test_a_smart_host_stands_between_the_two_overrides(destination: str, host: str) -> None:
    transports = {"direct.test": "mx"}
    found = route(destination, SMART_HOST, transports=transports, outbound__mx_override=OVERRIDES)
    assert found.host == host


def test_mx_in_spite_of_a_smart_host() -> None:
    found = route("direct.test", SMART_HOST, transports={"direct.test": "mx"})
    assert (found.key, found.host, found.port) == ("direct.test", "", 25)


def test_an_override_keeps_each_domain_by_itself() -> None:
    router = Router(settings_of(outbound__mx_override={"*": "[::1]:2525"}))
    assert router.route("a.test") == Route("a.test", "::1", 2525)
    assert router.route("b.test").key == "b.test"


# -- the smart host -----------------------------------------------------------------------------


@pytest.mark.mission("DIN-17")
@pytest.mark.parametrize("prefix", ["SMTP_RELAY_", "RELAY_"])
def test_the_smart_host_is_taken_from_either_name(prefix: str) -> None:
    given = {f"{prefix}HOST": "smart.test", f"{prefix}PORT": "2587"}
    settings = load(None, given)
    found = Router(settings).route("far.test")
    assert (found.key, found.host, found.port) == ("smtp://smart.test:2587", "smart.test", 2587)
    assert found.login is None
    warned = [each for each in settings.warnings if each.startswith("RELAY_")]
    assert len(warned) == (2 if prefix == "RELAY_" else 0)
    assert all("is called SMTP_RELAY_" in each for each in warned)


@pytest.mark.parametrize(
    "environ, level, is_implicit",
    [
        ({}, Tls.VERIFY, False),
        ({"USE_TLS": "yes", "TLS_VERIFY": "yes"}, Tls.VERIFY, False),
        ({"TLS_VERIFY": "no"}, Tls.REQUIRED, False),
        ({"USE_TLS": "no"}, Tls.NONE, False),
        ({"USE_TLS": "no", "TLS_VERIFY": "yes"}, Tls.NONE, False),
        ({"SMTP_RELAY_PORT": "465"}, Tls.VERIFY, True),
        ({"SMTP_RELAY_PORT": "465", "TLS_VERIFY": "no"}, Tls.REQUIRED, True),
        ({"SMTP_RELAY_PORT": "465", "USE_TLS": "no"}, Tls.NONE, False),
    ],
)
def test_tls_to_the_smart_host_is_as_insisted_on(
    environ: dict[str, str], level: Tls, is_implicit: bool
) -> None:
    found = route("far.test", SMART_HOST | environ, relay__ca_file="/ca.pem")
    assert found.tls == TlsPolicy(level, is_implicit, "/ca.pem", "relay")


def test_tls_switched_off_where_tls_is_spoken_is_warned_of() -> None:
    off = SMART_HOST | {"SMTP_RELAY_PORT": "465", "USE_TLS": "no"}
    assert any("relay.tls is off" in each for each in load(None, off).warnings)


@pytest.mark.mission("DIN-13")
@pytest.mark.parametrize(
    "password", ["abcd efgh ijkl mnop", "abcd\u00a0efgh\u00a0ijkl\u00a0mnop", " abcdefgh ijklmnop "]
)
def test_the_spaces_of_an_app_password_are_left_out_with_a_warning(password: str) -> None:
    settings = load(None, SMART_HOST | LOGIN | {"SMTP_RELAY_PASSWORD": password})
    found = Router(settings).route("far.test")
    assert found.login == Login("me@smart.test", "abcdefghijklmnop")
    (warning,) = settings.warnings
    assert warning.startswith("SMTP_RELAY_PASSWORD (relay.password): the spaces")
    assert "abcd" not in warning


@pytest.mark.parametrize("missing", list(LOGIN))
def test_half_a_login_is_none_and_warned_of(missing: str) -> None:
    settings = load(None, {**SMART_HOST, **LOGIN, missing: ""})
    assert Router(settings).route("far.test").login is None
    assert any("no login is tried" in each for each in settings.warnings)


# -- LMTP ----------------------------------------------------------------------------------------


def test_local_mail_goes_to_the_lmtp_server() -> None:
    settings = settings_of(
        SMART_HOST, delivery__mode="lmtp", delivery__host="127.0.0.1", delivery__port=2424
    )
    found = Router(settings).route(LOCAL)
    assert (found.key, found.host, found.port) == ("lmtp://127.0.0.1:2424", "127.0.0.1", 2424)
    assert found.is_lmtp


def test_local_mail_without_an_lmtp_server_waits_for_one() -> None:
    found = route(LOCAL, SMART_HOST)
    assert (found.host, found.is_lmtp) == ("", True)


# -- transports ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url, expected",
    [
        ("smtp://h.test", Route("smtp://h.test:25?tls=opportunistic", "h.test", 25)),
        ("smtp://H.Test:2525/", Route("smtp://h.test:2525?tls=opportunistic", "h.test", 2525)),
        ("smtp://[::1]:26", Route("smtp://[::1]:26?tls=opportunistic", "::1", 26)),
        ("smtp://bücher.test", Route("smtp://xn--bcher-kva.test:25?tls=opportunistic",
                                     "xn--bcher-kva.test", 25)),
        ("lmtp://h", Route("lmtp://h:24?tls=opportunistic", "h", 24, is_lmtp=True)),
        ("smtp://h?tls=none", Route("smtp://h:25?tls=none", "h", 25, tls=TlsPolicy(Tls.NONE))),
        (
            "smtp://h?tls=verify",
            Route("smtp://h:25?tls=verify", "h", 25, tls=TlsPolicy(Tls.VERIFY)),
        ),
        (
            "smtps://h",
            Route("smtps://h:465?tls=required", "h", 465, tls=TlsPolicy(Tls.REQUIRED, True)),
        ),
        (
            "smtp://h:465?tls=required",
            Route("smtp://h:465?tls=required", "h", 465, tls=TlsPolicy(Tls.REQUIRED, True)),
        ),
        (
            "smtp://me%40h:p%20w%3A%2F@h:587",
            Route(
                "smtp://me%40h@h:587?tls=verify",
                "h",
                587,
                login=Login("me@h", "p w:/"),
                tls=TlsPolicy(Tls.VERIFY),
            ),
        ),
    ],
)  # fmt: skip
def test_a_transport_is_a_url(url: str, expected: Route) -> None:
    found = route("far.test", transports={"far.test": url})
    policy = found.tls
    assert policy.source == "transports far.test"
    assert (policy.level, policy.implicit) == (expected.tls.level, expected.tls.implicit)
    assert (found.key, found.host, found.port) == (expected.key, expected.host, expected.port)
    assert (found.is_lmtp, found.login) == (expected.is_lmtp, expected.login)


# -- who decides about TLS -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "given, destination, level, source",
    [
        ({}, "far.test", Tls.OPPORTUNISTIC, "outbound.tls"),
        ({"outbound__tls": "verify"}, "far.test", Tls.VERIFY, "outbound.tls"),
        ({"outbound__tls": "none"}, "far.test", Tls.NONE, "outbound.tls"),
        (
            {"outbound__tls": "verify", "outbound__mx_override": {"*": "10.0.0.7"}},
            "far.test",
            Tls.VERIFY,
            "outbound.tls",
        ),
        ({"outbound__tls": "verify", "relay__host": "h", "relay__tls": "no"}, "far.test",
         Tls.NONE, "relay"),
        ({"outbound__tls": "verify", "transports": {".test": "smtp://h"}}, "far.test",
         Tls.OPPORTUNISTIC, "transports .test"),
        ({"outbound__tls": "verify", "delivery__host": "h"}, LOCAL,
         Tls.OPPORTUNISTIC, "delivery"),
    ],
)  # fmt: skip
def test_the_route_decides_about_tls_before_the_default(
    given: dict[str, Any], destination: str, level: Tls, source: str
) -> None:
    settings = settings_of(**given)
    policies = tls_policy.from_settings(settings)
    found = now(policies.of(destination, Router(settings).route(destination)))
    assert (found.level, found.source) == (level, source)


def test_a_further_source_stands_before_the_default() -> None:
    async def strict(destination: str, _: Route) -> TlsPolicy | None:
        return TlsPolicy(Tls.VERIFY, source="mta-sts") if destination == "sts.test" else None

    default = TlsPolicy(Tls.OPPORTUNISTIC)
    policies = tls_policy.TlsPolicies((tls_policy.of_route, strict), default)
    assert now(policies.of("sts.test", Route("sts.test"))).source == "mta-sts"
    assert now(policies.of("far.test", Route("far.test"))) == default
