"""Orders at a real authority, from the account to the stored chain, without a server around.

The store is both databases; what the authority asks by HTTP is answered from its rows by a
small server of the test, as any node would.
"""

from __future__ import annotations

import stat
import textwrap
import threading
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from twisted.internet.task import Clock

from mailtwist.config.outgoing import Acme
from mailtwist.errors import Conflict, MailError, NotFound, ProtocolViolation
from mailtwist.store import acme, certificates, lease
from mailtwist.store.certificates import PURPOSE
from mailtwist.store.database import Inline
from mailtwist.store.ids import now_us
from mailtwist.store.secrets import Secrets
from mailtwist.tls import pem
from mailtwist.tls.acme import authority
from mailtwist.tls.acme.accounts import PURPOSE as ACCOUNT_PURPOSE
from mailtwist.tls.acme.issuance import Issuance
from mailtwist.tls.acme.proofs import Challenges
from mailtwist.tls.acme.values import OrderFailed
from tests.support.dns_updates import KEY_NAME, SECRET, Primary
from tests.support.facade import Facade
from tests.support.now import now
from tests.support.pebble import Pebble, running

EMAIL = "admin@example.com"
SECRETS = Secrets(b"k" * 32)

pytestmark = [pytest.mark.real, pytest.mark.slow]


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two looks at an authority that is beside us."""
    monkeypatch.setattr(authority, "FIRST_LOOK_S", 0.02)


class Here:
    async def run(self, work: Any) -> Any:
        return work()


@pytest.fixture(scope="module")
def pebble(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pebble]:
    """An authority that refuses every fourth nonce, with or without reason."""
    folder = tmp_path_factory.mktemp("pebble")
    with running(folder, reject=25, blocked=("blocked.example",)) as found:
        yield found


class Node:
    """A store with rows, what orders for them, and what answers the authority."""

    def __init__(self, database: Inline, pebble: Pebble) -> None:
        self.database = database
        self.pebble = pebble
        self.settings = Acme(**pebble.settings, dns_wait=0.0)
        self.now = now_us
        self.rows = 0
        self.asked: list[str] = []
        self.is_silent = False

    def issuance(self, **changed: Any) -> Issuance:
        settings = replace(self.settings, **changed)
        return Issuance(self.database, settings, secrets=SECRETS, threads=Here(), now=self.now)

    def issue(self, row: str, whom: str = EMAIL, **changed: Any) -> None:
        now(self.issuance(**changed).issue(row, whom))

    def row(self, hostname: str) -> str:
        """A new certificate row; its id."""
        self.rows += 1
        with self.database.engine.write() as connection:
            certificates.add(connection, hostname, f"row-{self.rows}", now=now_us())
        return f"row-{self.rows}"

    def order(self, row: str) -> acme.Order:
        with self.database.engine.read() as connection:
            return acme.find(connection, row)

    def stored(self, row: str) -> certificates.Row:
        with self.database.engine.read() as connection:
            found = certificates.find(connection, row)
        assert found is not None
        return found

    def bundle(self, row: str) -> pem.Bundle:
        stored = self.stored(row)
        key = SECRETS.open(stored.sealed_key, PURPOSE)
        return pem.read(stored.certificate_pem, stored.root_certificate, key, now=datetime.now(UTC))

    def value(self, statement: str) -> Any:
        from sqlalchemy import text

        with self.database.engine.read() as connection:
            return connection.execute(text(statement)).scalar()


@pytest.fixture
def node(database: Inline, pebble: Pebble) -> Iterator[Node]:
    found = Node(database, pebble)
    answers = Challenges(database, now_us)

    class Answering(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            folder, _, token = self.path.rpartition("/")
            found.asked.append(self.headers["Host"])
            known = folder == "/.well-known/acme-challenge" and not found.is_silent
            text = now(answers.answer(token)) if known else None
            self.send_response(200 if text else 404)
            self.end_headers()
            self.wfile.write((text or "").encode("ascii"))

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", pebble.http_port), Answering)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield found
    server.shutdown()
    server.server_close()
    thread.join()


# -- what is issued -------------------------------------------------------------------------


def test_a_whole_chain_for_all_names_is_stored_and_its_key_is_sealed(node: Node) -> None:
    row = node.row("mail.example.com,imap.example.com")
    node.issue(row)
    stored, bundle = node.stored(row), node.bundle(row)
    assert stored.issuer == "acme"
    assert set(bundle.names) == {"mail.example.com", "imap.example.com"}
    assert isinstance(bundle.key, ec.EllipticCurvePrivateKey)
    assert stored.certificate_pem.count("BEGIN CERTIFICATE") == 1
    assert stored.root_certificate.count("BEGIN CERTIFICATE") == 1
    assert "PRIVATE KEY" not in stored.sealed_key
    assert stored.public_key_pem == bundle.public_pem
    root = x509.load_pem_x509_certificate(node.pebble.root().encode("ascii"))
    bundle.certificates[-1].verify_directly_issued_by(root)
    # Nothing is left of the way there.
    assert node.value("SELECT count(*) FROM acme_challenge") == 0
    assert node.value("SELECT count(*) FROM lease WHERE name LIKE 'acme/%'") == 0


def test_the_key_is_of_the_kind_that_is_set(node: Node) -> None:
    row = node.row("mail.example.com")
    node.issue(row, key_type="rsa")
    key = node.bundle(row).key
    assert isinstance(key, rsa.RSAPrivateKey)
    assert key.key_size == 2048


def test_another_order_has_another_key_and_the_same_account(node: Node) -> None:
    row, other = node.row("mail.example.com"), node.row("other.example.com")
    before = node.pebble.new_accounts
    node.issue(row)
    first = node.stored(row)
    node.issue(row)
    node.issue(other, "somebody@else.example")
    second = node.stored(row)
    assert second.certificate_pem != first.certificate_pem
    assert second.public_key_pem != first.public_key_pem
    assert node.pebble.new_accounts == before + 1
    assert node.value("SELECT email FROM acme_account") == "somebody@else.example"


def test_the_account_key_is_sealed_and_registered_again_when_the_answer_was_lost(
    node: Node,
) -> None:
    row = node.row("mail.example.com")
    node.issue(row)
    with node.database.engine.write() as connection:
        account = acme.account(connection, node.pebble.directory_url)
        assert account is not None
        acme.keep_registration(connection, account.directory_url, "", "")
    assert "PRIVATE KEY" not in account.sealed_key
    assert "PRIVATE KEY" in SECRETS.open(account.sealed_key, ACCOUNT_PURPOSE)
    before = node.pebble.new_accounts
    node.issue(row)
    assert node.pebble.new_accounts == before
    assert node.value("SELECT account_url FROM acme_account") == account.url


def test_an_account_that_the_authority_has_forgotten_is_made_anew(node: Node) -> None:
    row = node.row("mail.example.com")
    node.issue(row)
    with node.database.engine.write() as connection:
        url = node.pebble.directory_url
        gone = node.value("SELECT account_url FROM acme_account") + "0"
        acme.keep_registration(connection, url, gone, EMAIL)
    node.issue(row)
    assert node.value("SELECT account_url FROM acme_account") != gone


def test_an_account_whose_key_cannot_be_opened_gets_another(node: Node) -> None:
    row = node.row("mail.example.com")
    with node.database.engine.write() as connection:
        foreign = Secrets(b"x" * 32).seal("key", ACCOUNT_PURPOSE)
        acme.establish_account(connection, node.pebble.directory_url, foreign, now_us())
    node.issue(row)
    assert node.stored(row).issuer == "acme"


# -- by DNS ---------------------------------------------------------------------------------


def hook(folder: Path, pebble: Pebble, body: str = "") -> tuple[str, ...]:
    """A program that tells the authority's DNS server, and keeps account of its calls."""
    import sys

    path = folder / "hook"
    default = f"""
        import json, sys, urllib.request
        verb, name, value = sys.argv[2:]
        with open({str(folder / "calls")!r}, "a") as file:
            print(sys.argv[1], verb, name, file=file)
        path = "set-txt" if verb == "add" else "clear-txt"
        body = json.dumps({{"host": name + ".", "value": value}}).encode()
        urllib.request.urlopen("http://127.0.0.1:{pebble._records}/" + path, body).read()
    """
    path.write_text(f"#!{sys.executable} -I\n" + textwrap.dedent(body or default))
    path.chmod(stat.S_IRWXU)
    return (str(path), "--zone=example.com")


def test_a_wildcard_is_proved_by_a_record_that_a_program_makes(node: Node, tmp_path: Path) -> None:
    row = node.row("*.wild.example.com, wild.example.com")
    node.issue(row, challenge="dns-01", dns_hook=hook(tmp_path, node.pebble))
    assert set(node.bundle(row).names) == {"*.wild.example.com", "wild.example.com"}
    calls = (tmp_path / "calls").read_text().splitlines()
    record = "_acme-challenge.wild.example.com"
    assert sorted(calls) == sorted(
        [f"--zone=example.com {verb} {record}" for verb in ("add", "add", "remove", "remove")]
    )
    assert node.asked == []


def test_a_wildcard_is_proved_by_a_signed_dynamic_update(node: Node) -> None:
    def tell(verb: str, name: str, value: str) -> None:
        path = "set-txt" if verb == "add" else "clear-txt"
        node.pebble.tell(path, host=f"{name}.", value=value)

    row = node.row("*.signed.example.com")
    primary = Primary(tell)
    try:
        node.issue(
            row,
            challenge="dns-01",
            dns_server=primary.address,
            dns_key_name=KEY_NAME,
            dns_key_secret=SECRET,
        )
    finally:
        primary.close()
    assert node.bundle(row).names == ("*.signed.example.com",)
    assert (primary.updates, primary.records) == (2, set())
    assert node.asked == []


def test_a_new_customer_is_bound_to_the_account(database: Inline, tmp_path: Path) -> None:
    secret = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"
    with running(tmp_path, reject=0, customers={"kid-1": secret}) as pebble:
        node = Node(database, pebble)
        row = node.row("customer.example.com")
        with pytest.raises(OrderFailed, match=r"acme\.eab_key_id and acme\.eab_hmac_key"):
            node.issue(row)
        with pytest.raises(OrderFailed, match="unauthorized"):
            node.issue(row, eab_key_id="kid-2", eab_hmac_key=secret)
        with pytest.raises(OrderFailed, match="cannot be read"):
            node.issue(row, eab_key_id="kid-1", eab_hmac_key="no base64 at all!")
        # Nobody answers its challenge; it has an account by then.
        with pytest.raises(OrderFailed, match="http-01: connection"):
            node.issue(row, eab_key_id="kid-1", eab_hmac_key=secret)
        assert node.value("SELECT account_url FROM acme_account").startswith("https://")


@pytest.mark.parametrize(
    "body, reason",
    [
        (
            "import sys; print('no such zone', file=sys.stderr); sys.exit(3)",
            "status 3: no such zone",
        ),
        ("pass", "dns-01: unauthorized"),
    ],
)
def test_a_program_that_fails_is_told_with_what_it_said(
    node: Node, tmp_path: Path, body: str, reason: str
) -> None:
    row = node.row("hooked.example.com")
    with pytest.raises(OrderFailed, match=reason):
        node.issue(row, challenge="dns-01", dns_hook=hook(tmp_path, node.pebble, body))
    assert reason in node.value("SELECT last_error FROM certificate")


def test_a_program_that_is_not_there_is_named(node: Node) -> None:
    row = node.row("hooked.example.com")
    with pytest.raises(OrderFailed, match=r"acme\.dns_hook: /no/such: No such file"):
        node.issue(row, challenge="dns-01", dns_hook=("/no/such",))


# -- what goes wrong ------------------------------------------------------------------------

HOST = "mail.example.com"


@pytest.mark.parametrize(
    "hostname, changed, reason",
    [
        (HOST, {"directory_url": "https://127.0.0.1:1/dir"}, "cannot be reached: .*refused"),
        (HOST, {"ca_file": ""}, "own certificate does not hold .*acme.ca_file"),
        (HOST, {"ca_file": "/no/such/file"}, "acme.ca_file: .*/no/such/file"),
        (HOST, {"challenge": "dns-01"}, "needs acme.dns_server or acme.dns_hook"),
        ("blocked.example", {}, "blocked.example"),
    ],
    ids=["unreachable", "untrusted", "no authorities", "no DNS", "not by this authority"],
)
def test_an_order_that_fails_says_why_and_the_old_certificate_stays(
    node: Node, hostname: str, changed: dict[str, Any], reason: str
) -> None:
    row = node.row(HOST)
    node.issue(row)
    before = node.stored(row)
    if hostname != HOST:
        with node.database.engine.write() as connection:
            connection.exec_driver_sql(f"UPDATE certificate SET hostname = '{hostname}'")
    with pytest.raises(OrderFailed, match=reason) as caught:
        node.issue(row, **changed)
    assert caught.value.http_status == 502
    assert replace(node.stored(row), hostname=HOST) == before
    order = node.order(row)
    assert order.failures == 1
    assert order.retry_at > now_us() + 3_500_000_000
    assert node.value("SELECT last_error FROM certificate") == caught.value.text


@pytest.mark.mission("DAP-196")
def test_an_authority_whose_own_certificate_is_not_trusted_hears_nothing(node: Node) -> None:
    row = node.row(HOST)
    before = node.pebble.log.count("calling handler")
    with pytest.raises(OrderFailed, match="does not hold"):
        node.issue(row, ca_file="")
    assert node.pebble.log.count("calling handler") == before
    assert node.stored(row).certificate_pem == ""


def test_a_url_that_is_no_directory_is_named(node: Node) -> None:
    row = node.row(HOST)
    url = node.pebble.directory_url.replace("/dir", "/other")
    with pytest.raises(OrderFailed, match="/other: the directory: answered 404"):
        node.issue(row, directory_url=url)


def test_a_challenge_that_nobody_answers_is_told_with_the_authoritys_reason(node: Node) -> None:
    row = node.row(HOST)
    node.is_silent = True
    with pytest.raises(OrderFailed, match=f"{HOST}: http-01: unauthorized: .*404"):
        node.issue(row)
    assert node.value("SELECT count(*) FROM acme_challenge") == 0
    node.is_silent = False
    node.issue(row)
    assert node.order(row).failures == 0
    assert node.value("SELECT last_error FROM certificate") == ""


@pytest.mark.parametrize(
    "hostname, reason",
    [
        ("127.0.0.1", "an address"),
        ("::1", "an address"),
        ("*.example.com", "a wildcard, which needs acme.challenge dns-01"),
        ("no name.example", "is no host name"),
        ("a.example,,b..example", "is no host name"),
        (",", "no host name"),
    ],
)
def test_what_no_authority_can_prove_is_no_order(node: Node, hostname: str, reason: str) -> None:
    row = node.row(hostname)
    before = node.pebble.log
    with pytest.raises(ProtocolViolation, match=f"hostname: .*{reason}"):
        node.issue(row)
    assert node.pebble.log == before


@pytest.mark.parametrize(
    "email, reason", [("", "email or mobile missing"), ("nobody", "invalid email")]
)
def test_an_order_needs_somebody_to_write_to(node: Node, email: str, reason: str) -> None:
    with pytest.raises(ProtocolViolation, match=reason):
        node.issue(node.row(HOST), email)


def test_an_account_knows_whom_to_write_to(node: Node) -> None:
    row = node.row(HOST)
    node.issue(row)
    node.issue(row, "")
    node.issue(row, "", email="from@settings.example")
    assert node.value("SELECT email FROM acme_account") == "from@settings.example"


def test_a_row_that_is_not_there_is_not_found(node: Node) -> None:
    with pytest.raises(NotFound):
        node.issue("no-such-row")


def test_an_order_that_another_node_has_under_way_is_not_made_twice(node: Node) -> None:
    row = node.row(HOST)
    number, other = node.order(row).certificate_id, node.database.ids.node_id + 1
    with node.database.engine.write() as connection:
        connection.exec_driver_sql(
            "INSERT INTO node (node_id, name, version, seen_at)"
            f" VALUES ({other}, 'far/1/x', '', {now_us()})"
        )
        assert lease.take(connection, f"acme/{number}", other, now=now_us(), seconds=60)
    with pytest.raises(Conflict, match="Another node orders"):
        node.issue(row)
    assert node.value("SELECT last_error FROM certificate") == ""
    with node.database.engine.write() as connection:
        # It was killed: nobody has seen it for long.
        connection.exec_driver_sql(f"UPDATE node SET seen_at = 0 WHERE node_id = {other}")
    node.issue(row)


@pytest.mark.parametrize(
    ("change", "kept"),
    [("hostname = 'other.example.com'", ""), ("certificate_pem = 'of somebody'", "of somebody")],
    ids=["another name", "another certificate"],
)
def test_a_row_that_changes_on_the_way_keeps_what_it_has(
    node: Node, monkeypatch: pytest.MonkeyPatch, change: str, kept: str
) -> None:
    row = node.row(HOST)
    issuance = node.issuance()
    withdraw = issuance._proofs.withdraw

    async def alter(challenges: Any) -> None:
        await withdraw(challenges)
        with node.database.engine.write() as connection:
            connection.exec_driver_sql(f"UPDATE certificate SET {change}")

    monkeypatch.setattr(issuance._proofs, "withdraw", alter)
    with pytest.raises(Conflict, match="has changed since"):
        now(issuance.issue(row, EMAIL))
    assert node.stored(row).certificate_pem == kept


# -- limits of authorities, and renewal -----------------------------------------------------


def test_what_the_authority_forbids_for_a_time_is_not_asked_before(node: Node) -> None:
    row = node.row(HOST)
    began = now_us()
    with node.database.engine.write() as connection:
        acme.note_failure(
            connection, node.order(row), "slow", retry_at=began, held_until=began + 60_000_000
        )
    with pytest.raises(OrderFailed, match="takes no order before"):
        node.issue(row)
    node.now = lambda: began + 61_000_000
    node.issue(row)
    assert node.order(row).held_until == 0


def test_each_failure_doubles_the_pause_up_to_a_day(node: Node) -> None:
    row = node.row(HOST)
    hours = []
    for _ in range(7):
        with pytest.raises(OrderFailed):
            node.issue(row, directory_url="https://127.0.0.1:1/dir")
        hours.append(round((node.order(row).retry_at - now_us()) / 3.6e9))
    assert hours == [1, 2, 4, 8, 16, 24, 24]


def test_an_authority_that_says_nothing_leaves_thirty_days(node: Node) -> None:
    row = node.row(HOST)
    node.issue(row)
    order = node.order(row)
    assert order.ask_at <= now_us()
    assert now(node.issuance().ask_when(order)) == node.order(row)
    ends = node.bundle(row).not_after
    assert order.renew_at == int((ends - timedelta(days=30)).timestamp() * 1e6)
    assert node.order(row).ask_at > now_us() + 80_000_000_000


def test_an_authority_that_knows_says_when_and_is_told_what_is_replaced(
    node: Node, tmp_path: Path
) -> None:
    facade = Facade(tmp_path)
    try:
        # The same authority, which knows of renewal information besides.
        directory = node.pebble.directory()
        facade.offer(**directory, renewalInfo=f"{facade.url}/renew")
        trusted = tmp_path / "both.pem"
        trusted.write_bytes(
            facade.signer.file.read_bytes() + Path(node.pebble.ca_file).read_bytes()
        )
        node.settings = replace(
            node.settings, directory_url=f"{facade.url}/dir", ca_file=str(trusted)
        )
        row = node.row(HOST)
        node.issue(row)
        leaf = node.bundle(row).leaf
        start = datetime.now(UTC).replace(microsecond=0) + timedelta(days=40)
        window = {"start": start.isoformat(), "end": (start + timedelta(hours=9)).isoformat()}
        path = f"/renew/{renewal_id(leaf)}"
        facade.say(path, {"suggestedWindow": window}, Retry_After="7200")
        found = now(node.issuance().ask_when(node.order(row)))
        assert found == node.order(row)
        assert 0 <= (found.renew_at or 0) / 1e6 - start.timestamp() <= 9 * 3600
        assert 7100 <= (found.ask_at - now_us()) / 1e6 <= 7200
        # It cannot be asked for a while: what is known stays.
        facade.say(path, {}, 503)
        later = now(node.issuance().ask_when(found))
        assert later.renew_at == found.renew_at
        assert (later.ask_at - now_us()) / 3.6e9 == pytest.approx(6, abs=0.1)
        now(node.issuance().issue(row, "", by_schedule=True))
        assert node.bundle(row).leaf != leaf
    finally:
        facade.close()


def renewal_id(leaf: x509.Certificate) -> str:
    # RFC 9773 §4.1
    authority = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    assert authority.key_identifier is not None
    octets = leaf.serial_number.bit_length() // 8 + 1
    parts = (authority.key_identifier, leaf.serial_number.to_bytes(octets, "big"))
    return ".".join(urlsafe_b64encode(part).rstrip(b"=").decode("ascii") for part in parts)


def test_a_store_says_which_certificates_need_something(node: Node) -> None:
    names = ["due", "asked", "later", "failed", "own", "empty"]
    at = now_us()
    values = {
        "due": ("acme", "x", at - 1, at + 9, 0),
        "asked": ("acme", "x", at + 9, at - 1, 0),
        "later": ("acme", "x", at + 9, at + 9, 0),
        "failed": ("acme", "x", at - 1, at - 1, at + 9),
        "own": ("self", "x", at - 1, at - 1, 0),
        "empty": ("acme", "", at - 1, at - 1, 0),
    }
    for name in names:
        row = node.row(f"{name}.example")
        issuer, text, renew, ask, retry = values[name]
        with node.database.engine.write() as connection:
            connection.exec_driver_sql(
                f"UPDATE certificate SET issuer = '{issuer}', certificate_pem = '{text}',"
                f" renew_at = {renew}, ask_at = {ask}, retry_at = {retry}"
                f" WHERE reference_id = '{row}'"
            )
    with node.database.engine.read() as connection:
        found = acme.pending(connection, at, 0, 10)
        assert [each.hostname for each in found] == ["due.example", "asked.example"]
        assert acme.pending(connection, at, 0, 1) == found[:1]
        assert acme.pending(connection, at, found[0].certificate_id, 10) == found[1:]


def test_a_stopped_server_orders_nothing_and_counts_no_failure(node: Node) -> None:
    issuance, row = node.issuance(), node.row(HOST)
    now(issuance.stop(Clock(), 3.0))
    with pytest.raises(MailError, match="the server stops"):
        now(issuance.issue(row, EMAIL))
    assert node.order(row).failures == 0
    assert node.value("SELECT count(*) FROM lease") == 0
