"""A client of the HTTP API that is no part of the server: requests, answers, tokens made by hand.

Nothing here knows how the server is built; it speaks HTTP/1.1 by the standard library::

    rest = Rest(port).signed_in("a@x.org", "adminadmin")
    row = rest.make("mail_server", {"hostname": "mx.example.com"})
    assert rest.get("/api/mail_server", {"page[size]": 5}).total == 1
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import hmac
import http.client
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

JSON_API = "application/vnd.api+json"
SECRET = "correct horse"
_numbers = itertools.count(1)

Attributes = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def data(self) -> Any:
        """The row or rows of a JSON:API document."""
        assert self.status in {200, 201}, self
        assert self.headers["Content-Type"].split(";")[0] == JSON_API, self.headers.items()
        return self.json["data"]

    @property
    def ids(self) -> list[str]:
        return [row["id"] for row in self.data]

    def column(self, name: str) -> list[Any]:
        """The values of one attribute, in the order of the rows."""
        return [row["attributes"][name] for row in self.data]

    @property
    def total(self) -> int:
        return int(self.json["links"]["total"])

    @property
    def error(self) -> str:
        """What is wrong, as JSON:API or an action says it; asserts the shape of both."""
        assert 400 <= self.status < 500, self
        document = self.json
        if isinstance(document, list):
            (only,) = document
            assert only["ResponseType"] == "client.notify", self
            assert only["Attributes"]["type"] == "error", self
            assert only["Attributes"]["title"] == "failed", self
            return str(only["Attributes"]["message"])
        assert document["errors"], self
        for each in document["errors"]:
            assert each["status"] == str(self.status), self
        return " ".join(f"{each.get('title')} {each.get('detail')}" for each in document["errors"])


class Rest:
    """One port, and who asks."""

    def __init__(self, port: int, token: str = "", **headers: str) -> None:
        self.port = port
        self.token = token
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.headers.update(headers)

    # -- requests ---------------------------------------------------------------------------

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """``body``: octets as they are, anything else as JSON; ``query`` values too."""
        given = {**self.headers, **(headers or {})}
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        if data is not None and not any(name.lower() == "content-type" for name in given):
            given["Content-Type"] = JSON_API
        if query:
            path += "?" + urlencode({name: _plain(value) for name, value in query.items()})
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, data, given)
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        if answer.headers.get("Content-Encoding") == "gzip":
            content = gzip.decompress(content)
        return Answer(answer.status, answer.headers, content)

    def get(self, path: str, query: Mapping[str, Any] | None = None, **more: Any) -> Answer:
        return self.ask("GET", path, query=query, **more)

    def post(self, path: str, body: Any = None, **more: Any) -> Answer:
        return self.ask("POST", path, body, **more)

    def delete(self, path: str, **more: Any) -> Answer:
        return self.ask("DELETE", path, **more)

    # -- rows -------------------------------------------------------------------------------

    def create(
        self,
        entity: str,
        attributes: Mapping[str, Any] | None = None,
        relationships: Mapping[str, Any] | None = None,
    ) -> Answer:
        return self.post(f"/api/{entity}", document(entity, attributes, relationships))

    def make(
        self,
        entity: str,
        attributes: Mapping[str, Any] | None = None,
        relationships: Mapping[str, Any] | None = None,
    ) -> Any:
        """A new row, as the answer has it."""
        answer = self.create(entity, attributes, relationships)
        assert answer.status == 201, answer
        return answer.data

    def row(self, entity: str, id: str, query: Mapping[str, Any] | None = None) -> Any:
        return self.get(f"/api/{entity}/{id}", query).data

    def rows(self, entity: str, *conditions: Sequence[Any], **query: Any) -> Answer:
        """A list; each condition is (column, operator, value[, logical group])."""
        asked: dict[str, Any] = {name.replace("__", "["): each for name, each in query.items()}
        if conditions:
            names = ("column", "operator", "value", "logical_group")
            asked["query"] = [dict(zip(names, each, strict=False)) for each in conditions]
        return self.get(f"/api/{entity}", asked)

    def patch(
        self,
        entity: str,
        id: str,
        attributes: Mapping[str, Any] | None = None,
        relationships: Mapping[str, Any] | None = None,
    ) -> Answer:
        body = document(entity, attributes, relationships, id)
        return self.ask("PATCH", f"/api/{entity}/{id}", body)

    def change(self, entity: str, id: str, **attributes: Any) -> Any:
        """The row after a PATCH."""
        answer = self.patch(entity, id, attributes)
        assert answer.status == 200, answer
        return answer.data

    def remove(self, entity: str, id: str) -> Answer:
        return self.delete(f"/api/{entity}/{id}")

    # -- actions ----------------------------------------------------------------------------

    def act(self, entity: str, name: str, body: Any = None) -> Answer:
        return self.post(f"/action/{entity}/{name}", {} if body is None else body)

    def sign_up(self, email: str, password: str = SECRET, **more: Any) -> Answer:
        attributes = {
            "name": "A user",
            "email": email,
            "password": password,
            "passwordConfirm": password,
            **more,
        }
        return self.act("user_account", "signup", {"attributes": attributes})

    def sign_in(self, email: str, password: str = SECRET) -> Answer:
        attributes = {"email": email, "password": password}
        return self.act("user_account", "signin", {"attributes": attributes})

    def signed_in(self, email: str, password: str = SECRET) -> Rest:
        answer = self.sign_in(email, password)
        assert answer.status == 200, answer
        return self.with_token(token_of(answer))

    def with_token(self, token: str) -> Rest:
        return Rest(self.port, token)

    @property
    def guest(self) -> Rest:
        return Rest(self.port)

    # -- users ------------------------------------------------------------------------------

    def become_administrator(self, email: str = "admin@example.com") -> Rest:
        """The first user of a new server, as its administrator."""
        assert self.sign_up(email).status == 200
        first = self.signed_in(email)
        answer = first.act("world", "become_an_administrator")
        assert answer.status == 200, answer
        return first

    def user(self, email: str = "") -> User:
        """A new user, made by this administrator and signed in."""
        email = email or f"user{next(_numbers)}@people.example"
        attributes = {"name": email.split("@")[0], "email": email, "password": SECRET}
        row = self.make("user_account", attributes)
        signed_in = self.guest.signed_in(email)
        return User(self.port, signed_in.token, row["id"], email, self)


class User(Rest):
    """A signed-in user without rights of his own, and the administrator who made him."""

    def __init__(self, port: int, token: str, id: str, email: str, admin: Rest) -> None:
        super().__init__(port, token)
        self.id = id
        self.email = email
        self.admin = admin

    def account(self, name: str = "", domain: str = "example.com") -> tuple[str, str]:
        """A mail account of his: (id, address); the password is :data:`SECRET`."""
        address = f"{name or f'box{next(_numbers)}'}@{domain}"
        attributes = {"username": address, "password": SECRET, "user_account_id": self.id}
        return self.admin.make("mail_account", attributes)["id"], address

    def boxes(self, account: str) -> dict[str, str]:
        """Mailbox name to row id."""
        found = self.rows("mail_box", ("mail_account_id", "is", account), **{"page__size]": 100})
        return {row["attributes"]["name"]: row["id"] for row in found.data}

    def inbox(self, account: str) -> Answer:
        """The mails of the INBOX, oldest first."""
        box = self.boxes(account)["INBOX"]
        return self.rows("mail", ("mail_box_id", "is", box), sort="uid")


def document(
    entity: str,
    attributes: Mapping[str, Any] | None = None,
    relationships: Mapping[str, Any] | None = None,
    id: str = "",
) -> dict[str, Any]:
    """A JSON:API document; a relation may be given as (type, id), a list of them, or None."""
    data: dict[str, Any] = {"type": entity, "attributes": dict(attributes or {})}
    if id:
        data["id"] = id
    if relationships:
        data["relationships"] = {
            name: {"data": _linked(target)} for name, target in relationships.items()
        }
    return {"data": data}


def _linked(target: Any) -> Any:
    if isinstance(target, list):
        return [_linked(each) for each in target]
    return target if target is None else {"type": target[0], "id": target[1]}


def _plain(value: Any) -> str:
    return json.dumps(value) if isinstance(value, list | dict) else str(value)


def path(*parts: str) -> str:
    return "/" + "/".join(quote(part, safe="") for part in parts)


# -- actions' answers, and tokens -----------------------------------------------------------


def outcomes(answer: Answer) -> list[tuple[str, Any]]:
    """The (ResponseType, Attributes) pairs of an action's answer."""
    assert isinstance(answer.json, list), answer
    assert all(set(each) == {"ResponseType", "Attributes"} for each in answer.json), answer
    return [(each["ResponseType"], each["Attributes"]) for each in answer.json]


def token_of(answer: Answer) -> str:
    for kind, attributes in outcomes(answer):
        if kind == "client.store.set" and attributes["key"] == "token":
            return str(attributes["value"])
    raise AssertionError(answer)


def parts_of(token: str) -> tuple[Attributes, Attributes]:
    """Header and claims."""
    header, claims, _ = token.split(".")
    return _decoded(header), _decoded(claims)


def _decoded(part: str) -> Attributes:
    found: Attributes = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return found


def _coded(value: Any) -> str:
    octets = (
        value if isinstance(value, bytes) else json.dumps(value, separators=(",", ":")).encode()
    )
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def forge(header: Attributes, claims: Attributes, secret: bytes = b"") -> str:
    """A token signed by HMAC-SHA256 whatever the header says; without a secret unsigned."""
    signed = f"{_coded(header)}.{_coded(claims)}"
    mac = hmac.new(secret, signed.encode(), hashlib.sha256).digest() if secret else b""
    return f"{signed}.{_coded(mac)}"


def every_page(rest: Rest, entity: str, size: int = 7, **query: Any) -> Iterator[Any]:
    """All rows, page after page."""
    number = 1
    while True:
        answer = rest.get(
            f"/api/{entity}", {"page[size]": size, "page[number]": number, "sort": "created_at"}
        )
        yield from answer.data
        if number >= answer.json["links"]["last_page"]:
            return
        number += 1
