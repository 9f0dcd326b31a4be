"""The rows of REST: a page out of many mails, in the store and over HTTP, while mail flows."""

from __future__ import annotations

import http.client
import json
import statistics
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from benchmarks import http_load, smtp_load
from benchmarks.server import DOMAIN, HOST, PASSWORD, Server
from benchmarks.workloads import Row

if TYPE_CHECKING:
    from sqlalchemy import Table

    from mailtwist.store.engine import Engine

MAILS = 1_000_000
STEP = 50_000
PAGES = 3_000
CONNECTIONS = 10
EMAIL = "bench@bench.test"
PAGE = "/api/mail?page%5Bsize%5D=10"


def pages(database_url: str = "") -> Iterator[Row]:
    """Pages of 10 of a user who has so many mails, alone and while others receive."""
    server = Server(accounts=2, database_url=database_url)
    with server:
        port = server.ports["http"]
        token = administrator(port)
        # The limit of requests a second would be all that is measured.
        ask(port, token, "POST", "/_config/backend/limit.rate", '{"default": 0}')
        account = _post(
            port,
            token,
            "/api/mail_account",
            {"username": f"rows@{DOMAIN}", "password": PASSWORD},
        )["data"]["id"]
        smtp_load.send(server.ports["smtp"], [f"rows@{DOMAIN}"], 1, 1, 1024)
        multiply(server.url, f"rows@{DOMAIN}", MAILS - 1)
        box = _get(port, token, "/api/mail_box?filter=INBOX&page%5Bsize%5D=100")
        inbox = next(
            each["id"]
            for each in box["data"]
            if each["relationships"]["mail_account_id"]["data"]["id"] == account
        )
        cases = {
            "all mails": PAGE,
            "one mailbox": PAGE + "&query=" + _condition("mail_box_id", inbox),
            "in the middle": PAGE + "&page%5Bnumber%5D=50",
            "ping": "/ping",
        }
        for case, path in cases.items():
            yield from _measured(server, token, case, path)
        yield from _beside_mail(server, token)
        yield "after that", "resident", server.resident_kb() / 1024, "MiB"


def _measured(server: Server, token: str, case: str, path: str) -> Iterator[Row]:
    port = server.ports["http"]
    requests = [http_load.request(path, token)] * PAGES
    http_load.ask(port, requests[:200], CONNECTIONS)
    _, alone = http_load.ask(port, requests[:500], 1)
    yield case, "answer, median", statistics.median(alone) * 1000, "ms"
    yield case, "answer, p99", statistics.quantiles(alone, n=100)[98] * 1000, "ms"
    cpu = server.cpu_s()
    took, _ = http_load.ask(port, requests, CONNECTIONS)
    yield case, "rate", len(requests) / took, "requests/s"
    yield case, "processor", (server.cpu_s() - cpu) / len(requests) * 1000, "ms/request"


def _beside_mail(server: Server, token: str) -> Iterator[Row]:
    """The same while one connection delivers as fast as it can."""
    ended = threading.Event()
    delivered = 0

    def deliver() -> None:
        nonlocal delivered
        while not ended.is_set():
            smtp_load.send(server.ports["smtp"], server.accounts, 50, 1, 1024)
            delivered += 50

    mail = threading.Thread(target=deliver)
    mail.start()
    try:
        took, times = http_load.ask(
            server.ports["http"], [http_load.request(PAGE, token)] * PAGES, CONNECTIONS
        )
    finally:
        ended.set()
        mail.join()
    case = "all mails, mail flows"
    yield case, "rate", len(times) / took, "requests/s"
    yield case, "answer, p99", statistics.quantiles(times, n=100)[98] * 1000, "ms"
    yield case, "mail", delivered / took, "msg/s"


# -- filling ----------------------------------------------------------------------------------


def multiply(url: str, username: str, count: int) -> None:
    """Copy an account's only mail so many times, by SQL: delivering would take an hour."""
    from sqlalchemy import text

    from mailtwist.store import tables
    from mailtwist.store.engine import open_engine

    engine = open_engine(url)
    try:
        for start in range(1, count + 1, STEP):
            end = min(start + STEP - 1, count)
            with engine.write() as connection:
                account = connection.execute(
                    text("SELECT account_id FROM account WHERE username = :name"),
                    {"name": username},
                ).scalar_one()
                given = {"account": account, "start": start, "end": end}
                for table, moved in (
                    (tables.message, ("uid", "entry_id", "email_id", "internaldate", "saved_at")),
                    (tables.email, ("email_id",)),
                    (tables.email_detail, ("email_id",)),
                ):
                    connection.execute(text(_copy(table, moved)), given)
        _count(engine, username, count)
    finally:
        engine.dispose()


def _copy(table: Table, moved: tuple[str, ...]) -> str:
    names = [column.name for column in table.columns]
    values = [f"t.{name} + g.n" if name in moved else f"t.{name}" for name in names]
    first = "SELECT min(email_id) FROM message WHERE account_id = :account"
    return (
        f"INSERT INTO {table.name} ({', '.join(names)}) "
        "WITH RECURSIVE g(n) AS (SELECT CAST(:start AS BIGINT) UNION ALL "
        "SELECT n + 1 FROM g WHERE n < :end) "
        f"SELECT {', '.join(values)} FROM {table.name} t, g "
        f"WHERE t.account_id = :account AND t.email_id = ({first})"
    )


def _count(engine: Engine, username: str, count: int) -> None:
    """Bring the counters in line."""
    from sqlalchemy import text

    account = "account_id = (SELECT account_id FROM account WHERE username = :name)"
    with engine.write() as connection:
        for statement in (
            "UPDATE mailbox_state SET uidnext = uidnext + :n, messages = messages + :n, "
            f"unseen = unseen + :n, octets = octets * (:n + 1) WHERE messages > 0 AND {account}",
            "UPDATE account_state SET next_entry = next_entry + :n, messages = messages + :n, "
            f"octets = octets * (:n + 1) WHERE {account}",
        ):
            connection.execute(text(statement), {"n": count, "name": username})


# -- asking -----------------------------------------------------------------------------------


def administrator(port: int) -> str:
    given = {"name": "b", "email": EMAIL, "password": PASSWORD, "passwordConfirm": PASSWORD}
    _post(port, "", "/action/user_account/signup", given, is_row=False)
    answer = _post(port, "", "/action/user_account/signin", given, is_row=False)
    token = next(
        each["Attributes"]["value"] for each in answer if each["ResponseType"] == "client.store.set"
    )
    _post(port, token, "/action/world/become_an_administrator", {}, is_row=False)
    return str(token)


def _post(port: int, token: str, path: str, attributes: Any, *, is_row: bool = True) -> Any:
    body: Any = {"attributes": attributes}
    if is_row:
        body = {"data": {"type": path.rpartition("/")[2], **body}}
    return ask(port, token, "POST", path, json.dumps(body))


def _get(port: int, token: str, path: str) -> Any:
    return ask(port, token, "GET", path, None)


def ask(port: int, token: str, method: str, path: str, body: str | None) -> Any:
    connection = http.client.HTTPConnection(HOST, port, timeout=60)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
    finally:
        connection.close()
    if answer.status >= 300:
        raise RuntimeError(f"{method} {path}: {answer.status} {content[:500]!r}")
    return json.loads(content) if content else None


def _condition(column: str, value: str) -> str:
    from urllib.parse import quote

    return quote(json.dumps([{"column": column, "operator": "is", "value": value}]))
