"""``/emails`` of a running server: mail comes by SMTP, and is read, awaited and cleared by HTTP."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from email.message import EmailMessage
from email.policy import SMTP
from typing import Any

import pytest

from tests.e2e.server import Server
from tests.support.rest import Answer, Rest

pytestmark = [pytest.mark.real]

KEYS = ["first key of two", "second key of two"]
DOMAIN = "inbox.example"
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def server(module_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings: dict[str, Any] = {
        "inbox": {"domain": DOMAIN, "api_keys": KEYS, "api_rate": 0, "smtp_rate": 0}
    }
    if module_url:
        settings["database_url"] = module_url
    with Server(tmp_path_factory.mktemp("inbox"), **settings) as running:
        yield running
    assert [each for each in running.events if "unhandled" in str(each).lower()] == []
    running.check()


@pytest.fixture
def rest(server: Server) -> Rest:
    return keyed(server)


def keyed(server: Server, key: str = KEYS[1]) -> Rest:
    return Rest(server.ports["http"], **{"X-API-KEY": key})


@pytest.fixture
def name() -> str:
    """An inbox that no other test writes to."""
    return f"user{next(_numbers)}"


def send(
    server: Server, *names: str, message: str | bytes = "Subject: hi\r\n\r\nhello\r\n"
) -> None:
    with server.smtp() as smtp:
        sent = [each if "@" in each else f"{each}@{DOMAIN}" for each in names]
        assert not smtp.sendmail("ann@example.net", sent, message)


def later(ask: Callable[[], Answer]) -> Callable[[], Answer]:
    """Ask in a thread; the answer once it is there."""
    found: list[Answer] = []
    thread = threading.Thread(target=lambda: found.append(ask()))
    thread.start()

    def answer() -> Answer:
        thread.join(20)
        return found[0]

    return answer


@pytest.mark.mission("ADG-01")
@pytest.mark.mission("ADG-02")
@pytest.mark.mission("ADG-05")
@pytest.mark.mission("ADG-15")
def test_mail_to_any_name_of_the_domain_is_listed(server, rest, name):
    assert rest.get(f"/emails/{name}").json == []
    before = int(time.time())
    send(server, f"{name.upper()}@{DOMAIN.upper()}")
    answer = rest.get(f"/emails/{name}")
    assert answer.headers["Content-Type"] == "application/json"
    (item,) = answer.json
    assert set(item) == {
        "id", "from", "to", "subject", "body_text", "body_html", "attachments", "received_at",
    }  # fmt: skip
    assert (item["from"], item["subject"], item["body_text"]) == (
        "ann@example.net",
        "hi",
        "hello\n",
    )
    assert item["to"].lower() == f"{name}@{DOMAIN}"
    assert item["id"].isdigit()
    assert before <= item["received_at"] <= time.time()


@pytest.mark.mission("ADG-16")
@pytest.mark.mission("ADG-17")
def test_bodies_subjects_and_names_are_decoded(server, rest, name):
    letter = EmailMessage()
    letter["Subject"] = "Zażółć 🎉"
    letter.set_content("zażółć", charset="iso-8859-2")
    letter.add_alternative("<p>zażółć</p>", subtype="html", charset="utf-8")
    letter.add_attachment(b"%PDF", maintype="application", subtype="pdf", filename="zażółć.pdf")
    send(server, name, message=letter.as_bytes(policy=SMTP))
    unknown = b"Subject: x\r\nContent-Type: text/plain; charset=klingon\r\n\r\n\xff\xfe\r\n"
    send(server, name, message=unknown)
    strange, item = rest.get(f"/emails/{name}").json
    assert item["subject"] == "Zażółć 🎉"
    assert item["body_text"].strip() == "zażółć"
    assert item["body_html"].strip() == "<p>zażółć</p>"
    assert item["attachments"] == ["zażółć.pdf"]
    assert strange["body_text"].strip()
    (details,) = rest.get(f"/emails/{name}/{item['id']}").json["attachment_details"]
    assert rest.get(details["url"]).body == b"%PDF"


@pytest.mark.mission("ADG-04")
def test_the_newest_fifty_come_first(server, rest, name):
    with server.smtp() as smtp:
        for n in range(55):
            smtp.sendmail("a@example.net", [f"{name}@{DOMAIN}"], f"Subject: {n}\r\n\r\n")
    subjects = [item["subject"] for item in rest.get(f"/emails/{name}").json]
    assert subjects == [str(n) for n in range(54, 4, -1)]


@pytest.mark.mission("ADG-13")
@pytest.mark.mission("ADG-06")
def test_each_recipient_has_the_message_and_clears_his_own(server, rest, name):
    other = f"{name}-other"
    send(server, name, other)
    answer = rest.delete(f"/emails/{name}")
    assert answer.status == 200
    assert answer.json == {"message": f"All messages for {name} have been cleared"}
    assert rest.get(f"/emails/{name}").json == []
    assert len(rest.get(f"/emails/{other}").json) == 1


def test_one_message_is_read_whole_and_deleted(server, rest, name):
    send(server, name)
    (item,) = rest.get(f"/emails/{name}").json
    path = f"/emails/{name}/{item['id']}"
    assert rest.get(path).json["subject"] == "hi"
    assert rest.get(f"{path}/raw").body.endswith(b"Subject: hi\r\n\r\nhello\r\n")
    assert rest.delete(path).status == 200
    assert rest.get(path).status == rest.delete(path).status == 404


def test_a_long_attachment_comes_as_it_was_sent(server, rest, name):
    data = bytes(range(256)) * 20_000  # 5 MB
    letter = EmailMessage()
    letter.set_content("see below")
    letter.add_attachment(data, maintype="application", subtype="octet-stream", filename="data")
    send(server, name, message=letter.as_bytes(policy=SMTP))
    (item,) = rest.get(f"/emails/{name}").json
    single = rest.get(f"/emails/{name}/{item['id']}").json
    assert single["attachment_details"][0]["size"] == len(data)
    assert rest.get(f"/emails/{name}/{item['id']}/attachments/data").body == data
    assert len(rest.get(f"/emails/{name}/{item['id']}/raw").body) == single["size"]


def test_who_waits_has_the_message_as_soon_as_it_is_there(server, rest, name):
    answer = later(
        lambda: rest.get(f"/emails/{name}/wait", {"timeout": 20, "subject": "CODE", "from": "ann"})
    )
    until_asked(server)
    send(server, name)
    began = time.monotonic()
    send(server, name, message="Subject: your code\r\n\r\nIt is 482913: https://x.example/v\r\n")
    found = answer()
    assert time.monotonic() - began < 2
    assert (found.json["codes"], found.json["links"]) == (["482913"], ["https://x.example/v"])
    late = rest.get(f"/emails/{name}/wait", {"timeout": "0.1", "after": found.json["id"]})
    assert (late.status, late.json) == (404, {"error": "No such message came within 0.1 s"})


def test_a_search_finds_what_a_reader_sees(server, rest, name):
    send(server, name, message="From: Jörg <j@x.example>\r\nSubject: one\r\n\r\nalpha\r\n".encode())
    send(server, name, message="Subject: two\r\n\r\nbeta\r\n")
    for query, subjects in {
        "from:jörg": ["one"],
        "beta OR subject:one": ["two", "one"],
        "-has:attachment after:2020-01-01 -alpha": ["two"],
    }.items():
        found = rest.get(f"/emails/{name}", {"query": query}).json
        assert [item["subject"] for item in found] == subjects, query
    assert rest.get("/emails", {"query": "subject:one", "limit": 1}).json[0]["subject"] == "one"


@pytest.mark.mission("ADG-07")
@pytest.mark.mission("ADG-31")
def test_both_keys_open_it_and_no_other(server, name):
    assert [keyed(server, key).get(f"/emails/{name}").status for key in KEYS] == [200, 200]
    for rest in (Rest(server.ports["http"]), keyed(server, "wrong"), keyed(server, ",".join(KEYS))):
        for method in ("GET", "DELETE"):
            answer = rest.ask(method, f"/emails/{name}")
            assert (answer.status, answer.json) == (401, {"error": "invalid API key"})


@pytest.mark.mission("ADG-09")
@pytest.mark.mission("ADG-10")
@pytest.mark.mission("ADG-29")
def test_the_rate_holds_whatever_is_forged_and_mail_outlives_the_server(make_server):
    server = make_server(inbox={"domain": DOMAIN, "api_keys": KEYS, "api_rate": 5}).start()
    send(server, "bob")
    server.restart()
    rest = keyed(server)
    answers = [
        rest.get("/emails/bob", headers={"X-Forwarded-For": f"192.0.2.{n}"}) for n in range(8)
    ]
    assert [each.status for each in answers] == [200] * 5 + [429] * 3
    assert len(answers[0].json) == 1
    assert answers[-1].json == {"error": "rate limit exceeded"}
    assert 1 <= int(answers[-1].headers["Retry-After"]) <= 60
    assert keyed(server, "wrong").get("/emails/bob").status == 401


def test_a_server_that_stops_answers_who_waits(make_server):
    server = make_server(inbox={"domain": DOMAIN, "api_keys": KEYS}).start()
    rest = keyed(server)
    answer = later(lambda: rest.get("/emails/bob/wait", {"timeout": 60}))
    until_asked(server)
    assert rest.get("/emails/bob").status == 200  # who asked before was heard by now
    began = time.monotonic()
    server.terminate()
    found = answer()
    assert time.monotonic() - began < 3
    assert (found.status, json.loads(found.body)) == (503, {"error": "The server stops"})
    server.wait()


def until_asked(server: Server) -> None:
    """Wait until a client is connected by HTTP."""
    deadline = time.monotonic() + 10
    while not _connections(server) and time.monotonic() < deadline:
        time.sleep(0.01)


def _connections(server: Server) -> int:
    """Established connections to the HTTP listener, by the kernel."""
    port = f":{server.ports['http']:04X}"
    with open("/proc/net/tcp") as table:
        return sum(line.split()[1].endswith(port) and line.split()[3] == "01" for line in table)
