"""SCRAM against a client that others wrote (scramp), and against clients that lie."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scramp import ScramClient
from twisted.internet.task import Clock

from mailtwist.errors import MailError, ProtocolViolation, Refusal
from mailtwist.policy import passwords, sasl, scram
from mailtwist.policy.auth import Authenticator
from mailtwist.policy.sasl import MECHANISMS, Challenge, Channel
from mailtwist.store import accounts
from mailtwist.store.database import Inline
from tests.support.now import now

ALICE = "alice@example.com"
QUOTED = '"a=,b"@example.com'
PASSWORD = "pencil, café"
HERE = "192.0.2.1"
BOUND = Channel({"tls-exporter": b"x" * 32, "tls-server-end-point": b"e" * 32}, offers_plus=True)
UNBOUND = Channel({})
OPENING = b"n,,n=alice@example.com,r=abcdef"


@pytest.fixture(autouse=True)
def few_iterations(monkeypatch):
    monkeypatch.setattr(passwords, "SCRAM_ITERATIONS", 4096)


@pytest.fixture
def clock():
    clock = Clock()
    clock.advance(1_800_000_000)
    return clock


@pytest.fixture
def authenticator(engine, database, clock):
    with engine.write() as connection:
        accounts.add(connection, ALICE, passwords.make_verifiers(PASSWORD, cost=4))
        accounts.add(connection, QUOTED, passwords.make_verifiers("x", cost=4))
        accounts.add(
            connection, "old@example.com", passwords.make_verifiers("x", cost=4, has_scram=False)
        )
    return Authenticator(database, clock=clock, cost=4, secret=b"s" * 32)


class Door:
    """The logins of one client."""

    def __init__(self, authenticator, peer=HERE):
        self.authenticator = authenticator
        self.peer = peer

    async def login(self, username, password):
        return await self.authenticator.login(username, password, peer=self.peer, service="t")

    async def scram_keys(self, username):
        return await self.authenticator.scram_keys(username, peer=self.peer)

    async def prove(self, username, proof):
        return await self.authenticator.prove(username, proof, peer=self.peer, service="t")


def exchange(authenticator, mechanism="SCRAM-SHA-256", channel=UNBOUND, peer=HERE):
    return MECHANISMS[mechanism].make(Door(authenticator, peer), channel)


def log_in(
    authenticator,
    username=ALICE,
    password=PASSWORD,
    *,
    mechanism="SCRAM-SHA-256",
    binding=None,
    channel=UNBOUND,
    peer=HERE,
):
    """The whole dialogue with scramp's client; the login."""
    client = ScramClient([mechanism], username, password, channel_binding=binding)
    ours = exchange(authenticator, mechanism, channel, peer)
    assert now(ours.take(None)) == Challenge(b"")
    first = now(ours.take(client.get_client_first().encode()))
    client.set_server_first(first.octets.decode())
    last = now(ours.take(client.get_client_final().encode()))
    client.set_server_final(last.octets.decode())  # raises when we have no keys of his
    return now(ours.take(b""))


def test_the_right_password_tells_who_it_is(authenticator):
    found = log_in(authenticator)
    assert found.username == ALICE
    assert found.addresses == {ALICE}


def test_a_name_with_a_comma_and_an_equals_sign_is_read_back(authenticator):
    assert log_in(authenticator, QUOTED, "x").account_id == 2


@pytest.mark.parametrize("binding", ["tls-exporter", "tls-server-end-point"])
def test_with_plus_the_channel_is_bound(authenticator, binding):
    # What binds it is opaque to the client; this one does not know tls-exporter by name.
    given = ("tls-server-end-point", BOUND.bindings["tls-server-end-point"])
    if binding == "tls-exporter":
        ours = Client(b"p=tls-exporter,,", BOUND.bindings["tls-exporter"])
        assert ours.log_in(exchange(authenticator, "SCRAM-SHA-256-PLUS", BOUND)).username == ALICE
        return
    found = log_in(authenticator, mechanism="SCRAM-SHA-256-PLUS", binding=given, channel=BOUND)
    assert found.username == ALICE


class Client:
    """A client that says what the test wants."""

    def __init__(self, header=b"n,,", data=b"", name=b"alice@example.com", password=PASSWORD):
        self.header = header
        self.data = data
        self.bare = b"n=" + name + b",r=clientnonce"
        self.password = password

    def opening(self):
        return self.header + self.bare

    def ending(self, first, *, nonce=None, binding=None):
        found = re.fullmatch(rb"r=([^,]+),s=([^,]+),i=(\d+)", first)
        assert found is not None
        keys = passwords.Scram.derive(
            passwords.prepare(self.password), base64.b64decode(found[2]), int(found[3])
        )
        binding = self.header + self.data if binding is None else binding
        start = b"c=%b,r=%b" % (base64.b64encode(binding), nonce or found[1])
        message = b",".join((self.bare, first, start))
        salted = hashlib.pbkdf2_hmac(
            "sha256",
            passwords.prepare(self.password),
            base64.b64decode(found[2]),
            int(found[3]),
        )
        key = hmac.digest(salted, b"Client Key", "sha256")
        signature = hmac.digest(keys.stored_key, message, "sha256")
        proof = bytes(a ^ b for a, b in zip(key, signature, strict=True))
        return start + b",p=" + base64.b64encode(proof)

    def log_in(self, ours, **ending):
        first = now(ours.take(self.opening()))
        now(ours.take(self.ending(first.octets, **ending)))
        return now(ours.take(None))


def test_the_published_example_is_answered_as_published():
    # RFC 7677 §3
    salt = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
    keys = passwords.Scram.derive(b"pencil", salt, 4096)
    opening = scram.read_opening(b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO")
    first = scram.first_answer(opening, b"%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0", keys)
    assert first == (
        b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    )
    ending = scram.read_ending(
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
        b"p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
        opening,
        first,
    )
    assert ending.proof.holds(keys)
    assert ending.proof.last_answer(keys) == b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


# -- who is refused -------------------------------------------------------------------------


def refused(work) -> MailError:
    with pytest.raises(MailError) as caught:
        work()
    return caught.value


@pytest.mark.parametrize("username", [ALICE, "nobody@example.com", "old@example.com"])
def test_a_wrong_password_and_an_unknown_user_look_the_same(authenticator, username):
    error = refused(lambda: log_in(authenticator, username, "wrong"))
    assert isinstance(error, Refusal)
    assert (error.code, error.status, error.text) == (
        535, "5.7.8", "Authentication credentials invalid",
    )  # fmt: skip
    assert error.imap_code == "AUTHENTICATIONFAILED"


def test_an_unknown_user_has_a_salt_that_stays(database, clock):
    def salts(username, secret):
        authenticator = Authenticator(database, clock=clock, secret=secret)
        return now(authenticator.scram_keys(username, peer=HERE))

    same = salts("nobody@example.com", b"s" * 32)
    assert same == salts("nobody@example.com", b"s" * 32)
    assert len(same.salt) == 16
    assert same.salt != salts("anybody@example.com", b"s" * 32).salt
    assert same.salt != salts("nobody@example.com", b"t" * 32).salt


def test_five_wrong_proofs_lock_the_account_for_passwords_too(authenticator):
    for n in range(5):
        error = refused(lambda: log_in(authenticator, password="wrong", peer=f"192.0.2.{n}"))  # noqa: B023
        assert error.code == 535
    assert refused(lambda: log_in(authenticator)).code == 454
    with pytest.raises(MailError) as caught:
        now(authenticator.login(ALICE, PASSWORD, peer="192.0.2.9", service="t"))
    assert caught.value.code == 454


def test_guesses_at_once_are_no_more_than_guesses_in_turn(authenticator):
    client = Client(password="wrong")
    waiting = [exchange(authenticator, peer=f"192.0.2.{n}") for n in range(20)]
    firsts = [now(each.take(client.opening())).octets for each in waiting]
    codes = [
        refused(lambda: now(each.take(client.ending(first)))).code  # noqa: B023
        for each, first in zip(waiting, firsts, strict=True)
    ]
    assert codes == [535] * 5 + [454] * 15


def test_a_good_login_forgives_the_bad_ones(authenticator):
    for _ in range(3):
        for n in range(2):
            refused(lambda: log_in(authenticator, password="wrong", peer=f"192.0.2.{n}"))  # noqa: B023
        log_in(authenticator, peer="192.0.2.77")
    log_in(authenticator, peer="192.0.2.77")


def test_a_password_changed_in_between_is_no_login(authenticator, engine):
    ours, client = exchange(authenticator), Client()
    first = now(ours.take(client.opening())).octets
    with engine.write() as connection:
        account = accounts.find(connection, ALICE)
        accounts.set_secrets(
            connection, account.account_id, passwords.make_verifiers("new", cost=4)
        )
    assert refused(lambda: now(ours.take(client.ending(first)))).code == 535


# -- somebody in between ----------------------------------------------------------------------


def test_a_client_whose_plus_was_hidden_from_it_is_refused(authenticator):
    """The downgrade: the client could bind, and was told that we can't."""
    ours = exchange(authenticator, channel=BOUND)
    assert refused(lambda: now(ours.take(b"y,,n=alice@example.com,r=abc"))).code == 535


def test_where_we_can_not_bind_the_same_client_is_let_in(authenticator):
    assert Client(b"y,,").log_in(exchange(authenticator)).username == ALICE


def test_the_end_of_another_channel_is_refused(authenticator):
    ours = exchange(authenticator, "SCRAM-SHA-256-PLUS", BOUND)
    client = Client(b"p=tls-exporter,,", b"y" * 32)
    assert refused(lambda: client.log_in(ours)).code == 535


def test_a_binding_that_changes_its_mind_is_refused(authenticator):
    ours = exchange(authenticator)
    assert refused(lambda: Client().log_in(ours, binding=b"y,,")).code == 535


def test_a_binding_of_a_kind_that_we_lack_is_refused(authenticator):
    ours = exchange(authenticator, "SCRAM-SHA-256-PLUS", BOUND)
    assert refused(lambda: now(ours.take(b"p=tls-unique,,n=a,r=b"))).code == 535


def test_nobody_acts_for_somebody_else(authenticator):
    ours = exchange(authenticator)
    error = refused(lambda: now(ours.take(b"n,a=bob@example.com,n=alice@example.com,r=abc")))
    assert error.imap_code == "AUTHORIZATIONFAILED"
    # The empty one, which some clients send, names nobody.
    for own in (b"alice@example.com", b""):
        client = Client(b"n,a=" + own + b",")
        assert client.log_in(exchange(authenticator)).username == ALICE


# -- what can't be read -----------------------------------------------------------------------

BAD_OPENINGS = [
    b"", b",", b"n", b"n,", b"n,,", b"n,,n=a", b"n,,r=a,n=a", b"n,,n=,r=a", b"n,,n=a,r=",
    b"n,,n=a,r=a b", b"n,,n=a,r=\x7f", b"n,,n=a,r=" + b"a" * 513, b"x,,n=a,r=b",
    b"n,b=c,n=a,r=b", b"n,,m=x,n=a,r=b", b"n,,n=a=2,r=b", b"n,,n=a=2c,r=b",
    b"n,,n=\xff,r=b", b"n,,n=a\0,r=b", b"p=,,n=a,r=b", b"p=tls-exporter,,n=a,r=b",
    b"n,,n=" + b"a" * 1025 + b",r=b",
]  # fmt: skip


@pytest.mark.parametrize("message", BAD_OPENINGS)
def test_an_opening_that_is_none_is_no_guess(authenticator, message):
    for _ in range(9):
        with pytest.raises(ProtocolViolation):
            now(exchange(authenticator).take(message))
    log_in(authenticator)


@given(st.binary(max_size=80) | st.from_regex(rb"[npy](=x)?,(a=.{0,3})?,n=.{0,9},r=.{0,9}"))
def test_no_opening_and_no_ending_raises_anything_else(message):
    opening = scram.read_opening(OPENING)
    for read in (scram.read_opening, lambda m: scram.read_ending(m, opening, b"r=abcdefx,s=,i=1")):
        with contextlib.suppress(ProtocolViolation):
            read(message)


def test_without_a_binding_plus_is_no_plus(authenticator):
    with pytest.raises(ProtocolViolation):
        now(exchange(authenticator, "SCRAM-SHA-256-PLUS", BOUND).take(OPENING))


@pytest.mark.parametrize(
    "change",
    [
        lambda m: b"",
        lambda m: m.partition(b",p=")[0],
        lambda m: m.replace(b"c=", b"d="),
        lambda m: m.replace(b",r=", b",s="),
        lambda m: m.replace(b"c=biws", b"c=%%%"),
        lambda m: m[:-8],
        lambda m: m.partition(b",p=")[0] + b",p=AAAA",
        lambda m: m.replace(b"r=clientnonce", b"r=otherrnonce"),
    ],
)
def test_an_ending_that_is_none_is_refused(authenticator, change):
    ours, client = exchange(authenticator), Client()
    first = now(ours.take(client.opening())).octets
    with pytest.raises(ProtocolViolation):
        now(ours.take(change(client.ending(first))))


def test_the_client_has_the_last_word_and_it_is_empty(authenticator):
    ours, client = exchange(authenticator), Client()
    first = now(ours.take(client.opening())).octets
    now(ours.take(client.ending(first)))
    with pytest.raises(ProtocolViolation):
        now(ours.take(b"more"))


def test_keys_with_a_mad_count_of_iterations_are_nobodys():
    with pytest.raises(ValueError):
        passwords.Scram.parse("SCRAM-SHA-256$99999999:AAAA$AAAA:AAAA")


# -- the list of mechanisms -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("methods", "has_keys", "can_bind", "offered"),
    [
        (("plain", "login"), True, True, ("PLAIN", "LOGIN")),
        (("plain",), True, True, ("PLAIN",)),
        (("scram-sha-256", "plain"), True, False, ("SCRAM-SHA-256", "PLAIN")),
        (("scram-sha-256-plus", "scram-sha-256"), True, False, ("SCRAM-SHA-256",)),
        (("scram-sha-256-plus",), True, True, ("SCRAM-SHA-256-PLUS",)),
        (("scram-sha-256", "plain", "scram-sha-256-plus"), False, True, ("PLAIN",)),
        ((), True, True, ()),
    ],
)
def test_what_is_offered_follows_from_methods_keys_and_channel(
    methods, has_keys, can_bind, offered
):
    assert sasl.usable(sasl.chosen(methods, has_keys=has_keys), can_bind=can_bind) == offered


def test_a_slow_store_does_not_let_a_proof_skip_the_line(engine, clock):
    """The proof is looked at with what the store says then, not with what it said at first."""
    database = Inline(engine)
    with engine.write() as connection:
        accounts.add(connection, ALICE, passwords.make_verifiers(PASSWORD, cost=4))
    authenticator = Authenticator(database, clock=clock, cost=4)
    ours, client = exchange(authenticator), Client()
    first = now(ours.take(client.opening())).octets
    with engine.write() as connection:
        account = accounts.find(connection, ALICE)
        accounts.set_state(connection, account.account_id, "disabled")
    assert refused(lambda: now(ours.take(client.ending(first)))).code == 535
