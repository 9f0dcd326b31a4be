"""Routes below one prefix answer alike: no route, wrong methods, limits, pages of others."""

from __future__ import annotations

from typing import ClassVar

import pytest

from mailtwist.errors import Refusal
from mailtwist.http.cors import Policy
from mailtwist.http.exchange import Family, Route, WrongMethod, json_answer
from tests.http.asking import Server

SITE = "https://site.example"


class Values:
    given: ClassVar = {
        "limit.rate": '{"/shop/limited": 1}',
        "cors.config": '{"allowed_origins": ["https://app.example.com"]}',
    }

    def get(self, name):
        return self.given.get(name, "")


async def fine(exchange):
    return json_answer({})


async def refusing(exchange):
    raise Refusal("not here")


def shape(error):
    allowed = error.allowed if isinstance(error, WrongMethod) else ()
    return json_answer({"wrong": error.text, "allowed": list(allowed)}, error.http_status)


@pytest.fixture
def server():
    routes = (
        Route("/shop", ("GET",), fine, shape),
        Route("/shop/limited", ("GET",), fine, shape),
        Route("/shop/refused", ("POST",), refusing, shape),
        Route("/shopping", ("GET",), fine),
    )
    return Server(
        routes=routes,
        values=Values(),
        families=(Family("/shop", shape, lambda: Policy(origins=(SITE,))),),
    )


@pytest.mark.parametrize(
    ("method", "path", "status", "allowed"),
    [
        ("GET", "/shop/nothing", 404, []),
        ("GET", "/shop/", 404, []),
        ("DELETE", "/shop", 405, ["GET", "HEAD"]),
        ("GET", "/shop/refused", 405, ["POST"]),
        ("POST", "/shop/refused", 403, []),
    ],
)
def test_an_error_has_the_shape_of_its_family(server, method, path, status, allowed):
    answer = server.answer(method, path)
    assert answer.status == status
    assert answer.json["allowed"] == allowed
    assert "wrong" in answer.json


@pytest.mark.parametrize("path", ["/shopping/x", "/sho", "/nothing"])
def test_what_only_begins_alike_is_no_member(server, path):
    answer = server.answer("GET", path)
    assert answer.status == 404
    assert "errors" in answer.json


@pytest.mark.parametrize("path", ["/shop/limited", "//shop/limited", "/sho%70/l%69mited"])
def test_limits_too(server, path):
    assert server.answer("GET", "/shop/limited").status == 200
    answer = server.answer("GET", path)
    assert (answer.status, answer.headers["retry-after"]) == (429, "1")
    assert "wrong" in answer.json


@pytest.mark.parametrize("path", ["/shop", "/shop?to=x"])
def test_a_body_that_is_too_large_too(server, path):
    transport = server.ask(
        f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 2000000\r\n\r\n".encode()
    )
    head, _, body = transport.value().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 413 ")
    assert b'"wrong"' in body
    server.hang_up(transport)


def test_a_family_has_its_own_list_of_pages(server):
    for origin, path, is_allowed in (
        (SITE, "/shop", True),
        (SITE, "/shopping", False),
        ("https://app.example.com", "/shop", False),
        ("https://app.example.com", "/shopping", True),
    ):
        answer = server.answer("GET", path, origin=origin)
        assert ("access-control-allow-origin" in answer.headers) is is_allowed, (origin, path)
        asked = server.answer("OPTIONS", path, origin=origin, access_control_request_method="GET")
        assert asked.status == (204 if is_allowed else 403), (origin, path)


def test_a_preflight_that_is_refused_has_its_shape(server):
    answer = server.answer(
        "OPTIONS", "/shop", origin="https://evil.example", access_control_request_method="GET"
    )
    assert answer.status == 403
    assert "wrong" in answer.json
