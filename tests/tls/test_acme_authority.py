"""What an authority may say beside what it should: bounds, refusals, renewal information."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from mailtwist.tls import pem
from mailtwist.tls.acme.chains import RenewalTimes, make_key
from mailtwist.tls.acme.values import AccountUnknown, OrderFailed, names_of, tidy
from tests.support.facade import PROBLEM, Facade, Said

KEY = make_key("ecdsa")


def authority(facade: Facade, path: str = "/dir") -> Any:
    from mailtwist.tls.acme.authority import Authority

    return Authority(facade.url + path, KEY, ca_file=str(facade.signer.file))


def connected(facade: Facade) -> Any:
    found = authority(facade)
    found.connect()
    return found


@pytest.fixture
def facade(tmp_path: Path) -> Iterator[Facade]:
    found = Facade(tmp_path)
    yield found
    found.close()


# -- the directory --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said, reason",
    [
        ((200, {}, b"<html>"), "/dir: the directory: "),
        ((200, {}, b"[1]"), "/dir: the directory cannot be read"),
        ((200, {}, b'{"newOrder": 1}'), "it is no ACME directory"),
        ((200, {}, b'{"meta": 7}'), "/dir: the directory"),
        ((500, {}, b""), "answered 500"),
        ((302, {"Location": "https://127.0.0.1:1/"}, b""), "/dir: the directory: "),
        ((200, {}, b" " * (1 << 20) + b"{}"), "too long or too slow"),
    ],
    ids=["HTML", "list", "no directory", "odd meta", "broken", "elsewhere", "endless"],
)
def test_what_is_no_directory_is_told_and_nothing_follows(
    facade: Facade, said: Said, reason: str
) -> None:
    facade.answers["/dir"] = said
    with pytest.raises(OrderFailed, match=reason):
        authority(facade).connect()
    assert facade.asked == ["GET /dir"]


def test_a_directory_may_not_lead_to_clear_text(facade: Facade) -> None:
    facade.offer(newNonce="http://127.0.0.1:1/newNonce")
    with pytest.raises(OrderFailed, match="which is no https"):
        connected(facade).sign_in("", "a@example.com")


# -- accounts -------------------------------------------------------------------------------


def test_refused_nonces_are_tried_again_but_not_for_ever(facade: Facade) -> None:
    orders = connected(facade)
    facade.refuse("/newAccount", "badNonce", "again")
    with pytest.raises(OrderFailed, match="badNonce: again"):
        orders.sign_in("", "a@example.com")
    assert facade.asked.count("POST /newAccount") == 8
    nonces = [body["protected"] for body in facade.bodies if body]
    assert len(set(nonces)) == 8


def test_an_authority_that_wants_customers_names_the_settings(facade: Facade) -> None:
    facade.offer(meta={"externalAccountRequired": True})
    with pytest.raises(OrderFailed, match=r"acme\.eab_key_id and acme\.eab_hmac_key are missing"):
        connected(facade).sign_in("", "a@example.com")


def test_an_account_in_use_is_not_asked_about(facade: Facade) -> None:
    orders = connected(facade)
    url = f"{facade.url}/account/1"
    assert orders.sign_in(url, "a@example.com", known_as="a@example.com") == url
    assert facade.asked == ["GET /dir"]
    facade.say("/account/1", {"status": "valid"})
    assert orders.sign_in(url, "b@example.com", known_as="a@example.com") == url
    assert facade.asked[-1] == "POST /account/1"


def test_an_account_that_is_gone_is_told_apart(facade: Facade) -> None:
    orders = connected(facade)
    orders.sign_in(f"{facade.url}/account/1", "")
    facade.refuse("/newOrder", "accountDoesNotExist", "who?")
    with pytest.raises(AccountUnknown, match="who"):
        orders.order(["a.example"], KEY.encode(), "http-01")


# -- orders ---------------------------------------------------------------------------------


def soon(seconds: float) -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize(
    "field, low, high",
    [
        ("7200", 7200, 7200),
        (soon(86400), 80000, 86400),
        ("-5", 0, 0),
        ("soon", 0, 0),
        ("9" * 400, 0, 0),
        ("999999999", 604800, 604800),
        ("", 0, 0),
    ],
    ids=["seconds", "date", "negative", "words", "absurd", "years", "none"],
)
def test_a_rate_limit_says_how_long_to_wait(
    facade: Facade, field: str, low: float, high: float
) -> None:
    orders = connected(facade)
    orders.sign_in(f"{facade.url}/account/1", "")
    facade.refuse("/newOrder", "rateLimited", "too many", 429, Retry_After=field)
    with pytest.raises(OrderFailed, match="rateLimited: too many") as caught:
        orders.order(["a.example"], KEY.encode(), "http-01")
    assert low <= caught.value.retry_after_s <= high


def test_every_name_that_is_refused_is_told(facade: Facade) -> None:
    orders = connected(facade)
    orders.sign_in(f"{facade.url}/account/1", "")
    problem = {
        "type": "urn:ietf:params:acme:error:rejectedIdentifier",
        "detail": "some names",
        "subproblems": [
            {
                "type": "urn:ietf:params:acme:error:rejectedIdentifier",
                "detail": "not\r\nthis one \x1b[31m",
                "identifier": {"type": "dns", "value": "b.example"},
            }
        ],
    }
    facade.say("/newOrder", problem, 400, Content_Type=PROBLEM)
    with pytest.raises(OrderFailed) as caught:
        orders.order(["a.example", "b.example"], KEY.encode(), "http-01")
    assert caught.value.text == ("rejectedIdentifier: some names; b.example: not this one [31m")


def test_an_order_without_the_challenge_that_is_set_is_told(facade: Facade) -> None:
    orders = connected(facade)
    orders.sign_in(f"{facade.url}/account/1", "")
    order = {
        "status": "pending",
        "identifiers": [{"type": "dns", "value": "a.example"}],
        "authorizations": [f"{facade.url}/authorization"],
        "finalize": f"{facade.url}/finalize",
    }
    facade.say("/newOrder", order, 201, Location=f"{facade.url}/order/1")
    authorization = {
        "status": "pending",
        "identifier": {"type": "dns", "value": "a.example"},
        "challenges": [{"type": "tls-alpn-01", "url": f"{facade.url}/c", "token": "t" * 43}],
    }
    facade.say("/authorization", authorization)
    with pytest.raises(OrderFailed, match="the authority offers no http-01"):
        orders.order(["a.example"], KEY.encode(), "http-01")


def test_an_authority_asks_about_nothing_that_was_not_ordered(facade: Facade) -> None:
    orders = connected(facade)
    orders.sign_in(f"{facade.url}/account/1", "")
    order = {
        "status": "pending",
        "identifiers": [{"type": "dns", "value": "a.example"}],
        "authorizations": [f"{facade.url}/authorization"],
        "finalize": f"{facade.url}/finalize",
    }
    facade.say("/newOrder", order, 201, Location=f"{facade.url}/order/1")
    authorization = {
        "status": "pending",
        "identifier": {"type": "dns", "value": "other.example"},
        "challenges": [{"type": "dns-01", "url": f"{facade.url}/c", "token": "t" * 43}],
    }
    facade.say("/authorization", authorization)
    with pytest.raises(OrderFailed, match=r"other\.example, which was not ordered"):
        orders.order(["a.example", "*.a.example"], KEY.encode(), "dns-01")


def test_an_order_that_stays_ready_is_given_up(
    facade: Facade, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mailtwist.tls.acme import authority as module

    monkeypatch.setattr(module, "ISSUE_S", 0.5)
    orders = connected(facade)
    orders.sign_in(f"{facade.url}/account/1", "")
    order = {
        "status": "ready",
        "identifiers": [{"type": "dns", "value": "a.example"}],
        "authorizations": [f"{facade.url}/authorization"],
        "finalize": f"{facade.url}/finalize",
    }
    facade.say("/newOrder", order, 201, Location=f"{facade.url}/order/1")
    facade.say("/order/1", order)
    facade.say("/finalize", order)
    authorization = {
        "status": "valid",
        "identifier": {"type": "dns", "value": "a.example"},
        "challenges": [],
    }
    facade.say("/authorization", authorization)
    assert orders.order(["a.example"], KEY.encode(), "http-01") == ()
    with pytest.raises(OrderFailed, match="no certificate within"):
        orders.finish()
    assert facade.asked.count("POST /finalize") == 1


# -- renewal information --------------------------------------------------------------------


@pytest.fixture
def certificate(facade: Facade) -> str:
    return pem.read(facade.signer.issue("a.example").read_bytes(), now=None).leaf_pem


def window(start: datetime, end: datetime) -> dict[str, Any]:
    return {"suggestedWindow": {"start": start.isoformat(), "end": end.isoformat()}}


def renewal_path(facade: Facade) -> str:
    return facade.asked[-1].removeprefix("GET ")


def test_the_authority_says_when_to_renew(
    facade: Facade, certificate: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    facade.offer(renewalInfo=f"{facade.url}/renew")
    start = datetime(2026, 3, 1, tzinfo=UTC)
    end = start + timedelta(days=2)
    from acme import client

    monkeypatch.setattr(client, "_renewal_info_path_component", lambda leaf: "akid.serial")
    facade.say("/renew/akid.serial", window(start, end), Retry_After="21600")
    at, again = connected(facade).renewal_time(certificate)
    assert start <= at <= end
    assert again == 21600
    assert renewal_path(facade) == "/renew/akid.serial"


def test_an_authority_without_renewal_information_says_nothing(
    facade: Facade, certificate: str
) -> None:
    assert connected(facade).renewal_time(certificate)[0] is None


@pytest.mark.parametrize(
    "said",
    [
        (404, {}, b""),
        (200, {"Content-Type": "application/json"}, b"{}"),
        (200, {"Content-Type": "application/json"}, b"[]"),
        (200, {"Content-Type": "application/json"}, b'{"suggestedWindow": {"start": "x"}}'),
        (200, {"Content-Type": "application/json"}, b'{"suggestedWindow": {}}'),
    ],
    ids=["missing", "empty", "list", "no date", "no window"],
)
def test_renewal_information_that_cannot_be_read_is_told(
    facade: Facade, certificate: str, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    facade.offer(renewalInfo=f"{facade.url}/renew")
    from acme import client

    monkeypatch.setattr(client, "_renewal_info_path_component", lambda leaf: "id")
    facade.answers["/renew/id"] = said
    with pytest.raises(OrderFailed):
        connected(facade).renewal_time(certificate)


def test_an_order_says_what_it_replaces_where_the_authority_knows(
    facade: Facade, certificate: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from acme import client

    monkeypatch.setattr(client, "_renewal_info_path_component", lambda leaf: "akid.serial")
    for more, expected in (({}, None), ({"renewalInfo": f"{facade.url}/renew"}, "akid.serial")):
        facade.offer(**more)
        orders = connected(facade)
        orders.sign_in(f"{facade.url}/account/1", "")
        facade.refuse("/newOrder", "malformed", "no")
        with pytest.raises(OrderFailed):
            orders.order(["a.example"], KEY.encode(), "http-01", replaces=certificate)
        assert payload(facade.bodies[-1]).get("replaces") == expected


def test_an_order_that_was_replaced_already_is_made_without(
    facade: Facade, certificate: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from acme import client

    monkeypatch.setattr(client, "_renewal_info_path_component", lambda leaf: "akid.serial")
    facade.offer(renewalInfo=f"{facade.url}/renew")
    orders = connected(facade)
    orders.sign_in(f"{facade.url}/account/1", "")
    facade.refuse("/newOrder", "alreadyReplaced", "done", 409)
    with pytest.raises(OrderFailed):
        orders.order(["a.example"], KEY.encode(), "http-01", replaces=certificate)
    sent = [payload(body) for body in facade.bodies if body]
    assert [each.get("replaces") for each in sent] == ["akid.serial", None]


def payload(body: Any) -> Any:
    import base64

    text = body["payload"]
    return json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


# -- values ---------------------------------------------------------------------------------


@pytest.mark.parametrize("days, by_rule, after", [(90, 60, 60), (45, 15, 30), (6, -24, 4)])
def test_short_lives_are_not_renewed_again_at_once(days: int, by_rule: int, after: int) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    times = RenewalTimes(start, start + timedelta(days=days))
    assert times.by_rule == start + timedelta(days=by_rule)
    assert times.after_renewal == start + timedelta(days=after)


def test_names_come_from_the_row() -> None:
    assert names_of("Mail.Example.com, bücher.example", "http-01") == (
        "mail.example.com",
        "xn--bcher-kva.example",
    )
    assert names_of("*.example.com", "dns-01") == ("*.example.com",)


def test_foreign_text_is_one_short_line() -> None:
    assert tidy("a\r\nb\0\x1b[1m\u2028c " + "x" * 9000) == "a b [1m c " + "x" * 490
