from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import LogLevel, globalLogPublisher

from mailtwist.config import Settings
from mailtwist.config.outgoing import Dkim
from mailtwist.errors import StoreUnavailable
from mailtwist.mail.dkim import BodyHasher, HashedMessage, canonical_field
from mailtwist.policy import keyring
from mailtwist.policy.dkim import Signer
from mailtwist.policy.dkim_rotation import activate, prepare, record_name, record_value
from mailtwist.policy.hashing import Inline as InlineThreads
from mailtwist.policy.keyring import Keyring
from mailtwist.store import dkim_keys
from mailtwist.store.database import Inline
from mailtwist.store.secrets import Secrets
from tests.support import signatures
from tests.support.delayed import Delayed
from tests.support.dns import DnsServer
from tests.support.now import now

SECRETS = Secrets(b"k" * 32)
NOW = 1_700_000_000
BODY = b"\r\nHello  \t there\r\n\r\n.\r\n caf\xc3\xa9 \r\n\r\n\r\n"
LETTER = (
    b"Received: from here\r\nFrom: =?utf-8?q?Ann?= <ann@example.com>\r\n"
    b"To: Bob <bob@example.net>,\r\n\tCarl <carl@example.org>\r\nSubject:  hello\r\n  there \r\n"
    b"Date: Fri, 15 Jan 2027 08:00:00 +0000\r\nMessage-ID: <1@example.com>\r\n" + BODY
)


class Local:
    """A directory of domains; `asked` counts."""

    def __init__(self, *domains: str) -> None:
        self.domains = set(domains)
        self.asked = 0

    async def is_local(self, domain: str) -> bool:
        self.asked += 1
        return domain in self.domains


def hashed(message: bytes = LETTER) -> HashedMessage:
    hasher = BodyHasher()
    hasher.feed(message)
    return hasher.close()


Make = Callable[..., Signer]


@pytest.fixture
def make(database: Inline) -> Make:
    def make(*domains: str, store: Any = None, secrets: Secrets = SECRETS, **keys: Any) -> Signer:
        return Signer(
            store or database,
            Local(*(domains or ("example.com",))),
            secrets,
            settings=Settings(dkim=Dkim(**keys)),
            threads=InlineThreads(),
            now=lambda: NOW,
        )

    return make


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the strength of keys is not the matter."""
    monkeypatch.setattr(keyring, "RSA_BITS", 1024)


@pytest.fixture
def logged() -> Iterator[list[dict[str, Any]]]:
    events: list[dict[str, Any]] = []
    observe: Any = events.append
    globalLogPublisher.addObserver(observe)
    yield events
    globalLogPublisher.removeObserver(observe)


def warnings(events: list[dict[str, Any]]) -> list[str]:
    return [
        event["log_format"].format(**event)
        for event in events
        if event["log_namespace"] == "mailtwist.policy.dkim" and event["log_level"] > LogLevel.info
    ]


def keys_of(database: Inline, domain: str = "example.com") -> list[dkim_keys.Key]:
    found: list[dkim_keys.Key] = now(
        database.read(lambda connection: dkim_keys.list(connection, domain))
    )
    return found


def zone_of(keys: list[dkim_keys.Key]) -> dict[str, str]:
    return {record_name(key): record_value(key) for key in keys}


def tags_of(field: bytes) -> dict[str, str]:
    text = "".join(field.decode("ascii").partition(":")[2].split())
    return dict(tag.split("=", 1) for tag in text.split(";"))


def sign(signer: Signer, message: bytes = LETTER, reverse_path: str = "") -> bytes:
    return now(signer.sign(hashed(message), reverse_path=reverse_path))


@pytest.mark.mission("DAP-122", "DAP-123")
def test_a_key_makes_itself_and_the_signature_verifies(database: Inline, make: Make) -> None:
    assert keys_of(database) == []
    field = sign(make())
    (key,) = keys_of(database)
    tags = tags_of(field)
    assert tags["v"] == "1"
    assert (tags["a"], tags["c"]) == ("rsa-sha256", "relaxed/relaxed")
    assert (tags["d"], tags["s"], tags["t"]) == ("example.com", "d1", str(NOW))
    assert len(b64decode(tags["b"])) == 256
    assert "l" not in tags
    assert signatures.dkimpy(field + LETTER, zone_of([key]))


@pytest.mark.real
@pytest.mark.mission("DAP-122")
def test_another_verifier_finds_it_good_with_the_published_key(
    database: Inline, make: Make
) -> None:
    field = sign(make())
    zone = {name: {"TXT": [_in_strings(text)]} for name, text in zone_of(keys_of(database)).items()}
    with DnsServer(zone) as server:
        assert signatures.mail_dkim(field + LETTER, server) == ["pass d1 example.com"]
        changed = (field + LETTER).replace(b"there\r\n\r\n", b"here\r\n\r\n")
        assert signatures.mail_dkim(changed, server) == ["fail d1 example.com"]


def _in_strings(text: str) -> str:
    return f'"{text[:255]}" "{text[255:]}"'


NASTY = [
    b"From: a@example.com\r\n\r\n",
    b"From: a@example.com\r\n\r\n\r\n\r\n",
    b"From: a@example.com\r\n\r\nno end",
    b"From: a@example.com\r\n\r\nblanks \t \r\n \r\n\t\r\nend\t \r\n \r\n",
    b"from:\r\n a@example.com\r\nSubject:\r\nTo:  \t\r\n\t x@y\r\n\r\nhello\r\n",
    b"From: a@example.com\r\nFrom: b@example.com\r\nTo: c@d\r\nTo: e@f\r\n\r\nhello\r\n",
    b"From: a@example.com\r\nSubject: \xe2\x82\xac\r\n\r\n" + b"\xff\0 " * 999 + b"\r\n",
    b"From: a@example.com\r\nDKIM-Signature: v=1; d=x.test; s=y; b=z\r\n\r\nhello\r\n",
]


@pytest.mark.real
@pytest.mark.parametrize("message", NASTY)
def test_odd_messages_verify_too(database: Inline, make: Make, quick: None, message: bytes) -> None:
    signed = sign(make(), message) + message
    if not signed.endswith(b"\r\n"):
        signed += b"\r\n"
    zone = zone_of(keys_of(database))
    assert signatures.dkimpy(signed, zone)
    records = {name: {"TXT": [_in_strings(text)]} for name, text in zone.items()}
    with DnsServer(records) as server:
        assert "pass d1 example.com" in signatures.mail_dkim(signed, server)


@pytest.mark.parametrize(
    "change",
    [
        lambda signed: signed.replace(b"caf", b"kaf"),
        lambda signed: signed + b"more\r\n",
        lambda signed: signed.replace(b"Subject:  hello", b"Subject:  hallo"),
        lambda signed: b"From: eve@example.com\r\n" + signed,
        lambda signed: b"Subject: you won\r\n" + signed,
        lambda signed: b"To: eve@example.com\r\n" + signed,
    ],
    ids=["body", "longer", "subject", "second From", "second Subject", "second To"],
)
def test_what_was_signed_cannot_be_changed(
    database: Inline, make: Make, quick: None, change: Callable[[bytes], bytes]
) -> None:
    signed = sign(make()) + LETTER
    zone = zone_of(keys_of(database))
    assert signatures.dkimpy(signed, zone)
    assert not signatures.dkimpy(change(signed), zone)


def test_what_relays_do_to_white_space_does_no_harm(
    database: Inline, make: Make, quick: None
) -> None:
    signed = sign(make()) + LETTER
    changed = signed.replace(b"Hello  \t there", b"Hello there").replace(
        b"Subject:  hello\r\n  there \r\n", b"subject: hello there\r\n"
    )
    assert changed != signed
    assert signatures.dkimpy(b"Received: by a relay\r\n" + changed, zone_of(keys_of(database)))


# -- which domain signs -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "author, reverse_path, domains, signer",
    [
        ("ann@example.com", "", ["example.com"], "example.com"),
        ("ann@Example.COM", "x@example.net", ["example.com", "example.net"], "example.com"),
        ("ann@a.news.example.com", "", ["example.com"], "example.com"),
        ("ann@news.example.com", "", ["example.com", "news.example.com"], "news.example.com"),
        ("ann@example.org", "bounce@example.com", ["example.com"], "example.com"),
        ("a@example.org, b@example.com", "", ["example.com"], "example.com"),
        ("ann@example.org", "bounce@example.net", ["example.com"], ""),
        ("ann@notexample.com", "", ["example.com"], ""),
        ("ann@[127.0.0.1]", "", ["example.com"], ""),
        ("ann", "", ["example.com"], ""),
    ],
)
def test_the_authors_domain_signs_else_the_senders(
    make: Make, quick: None, author: str, reverse_path: str, domains: list[str], signer: str
) -> None:
    message = f"From: {author}\r\n\r\nhello\r\n".encode()
    field = sign(make(*domains), message, reverse_path)
    assert (tags_of(field)["d"] if field else "") == signer


@pytest.mark.parametrize(
    "author, signer",
    [("boss@other.example", "example.com"), ("ann@news.example.com", "example.com")],
)
def test_a_login_cannot_have_another_tenants_name_signed(
    make: Make, quick: None, author: str, signer: str
) -> None:
    message = f"From: {author}\r\n\r\nhello\r\n".encode()
    signing = make("example.com", "other.example").sign(
        hashed(message), reverse_path="ann@example.com", by_author=False
    )
    assert tags_of(now(signing))["d"] == signer


def test_a_domain_of_many_labels_costs_few_questions(make: Make, quick: None) -> None:
    signer = make("example.com")
    message = b"From: a@" + b"x." * 100 + b"example.com\r\n\r\nhello\r\n"
    assert sign(signer, message)
    assert signer._directory.asked < 10  # type: ignore[attr-defined]


# -- keys -------------------------------------------------------------------------------------


@pytest.mark.mission("DAP-125")
def test_the_selector_is_the_settings_and_each_has_its_key(
    database: Inline, make: Make, quick: None
) -> None:
    signer = make(selector="k2")
    assert tags_of(sign(signer))["s"] == "k2"
    signer.configure(Settings(dkim=Dkim(selector="d1")))
    first = sign(signer)
    assert tags_of(first)["s"] == "d1"
    signer.configure(Settings(dkim=Dkim(selector="k2")))
    again = sign(signer)
    assert tags_of(again)["s"] == "k2"
    keys = keys_of(database)
    assert sorted(key.selector for key in keys) == ["d1", "k2"]
    for field in (first, again):
        assert signatures.dkimpy(field + LETTER, zone_of(keys))


def test_ed25519_stands_beside_rsa(
    database: Inline, make: Make, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = sign(make(ed25519=True))
    rsa, ed25519 = [b"DKIM-Signature:" + part for part in both.split(b"DKIM-Signature:")[1:]]
    tags = tags_of(ed25519)
    assert (tags["a"], tags["s"]) == ("ed25519-sha256", "d1-ed25519")
    zone = zone_of(keys_of(database))
    assert signatures.dkimpy(rsa + LETTER, zone)
    public = zone["d1-ed25519._domainkey.example.com"]
    assert public.startswith("v=DKIM1; k=ed25519; p=")
    covered = b"".join(
        canonical_field(line)
        for line in (
            b"From: =?utf-8?q?Ann?= <ann@example.com>\r\n",
            b"Subject: hello there\r\n",
            b"Date: Fri, 15 Jan 2027 08:00:00 +0000\r\n",
            b"Message-ID: <1@example.com>\r\n",
            b"To: Bob <bob@example.net>, Carl <carl@example.org>\r\n",
            ed25519.replace(b"\r\n\tb=", b"\r\n\tb=\0").split(b"\0")[0],
        )
    )[:-2]
    key = Ed25519PublicKey.from_public_bytes(b64decode(public.partition("p=")[2]))
    key.verify(b64decode(tags["b"]), sha256(covered).digest())


def test_the_example_of_rfc_8463() -> None:
    """Appendix A: the same key makes the same signature of the same message."""
    header = (
        b"From: Joe SixPack <joe@football.example.com>\r\n"
        b"To: Suzie Q <suzie@shopping.example.net>\r\n"
        b"Subject: Is dinner ready?\r\n"
        b"Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)\r\n"
        b"Message-ID: <20030712040037.46341.5F8J@football.example.com>\r\n"
    )
    body = b"Hi.\r\n\r\nWe lost the game.  Are you hungry yet?\r\n\r\nJoe.\r\n"
    bh = "2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8="
    assert b64encode(hashed(header + b"\r\n" + body).body_hash).decode() == bh
    field = (
        "DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;\r\n"
        " d=football.example.com; i=@football.example.com;\r\n"
        " q=dns/txt; s=brisbane; t=1528637909; h=from : to :\r\n"
        " subject : date : message-id : from : subject : date;\r\n"
        f" bh={bh};\r\n b="
    ).encode()
    covered = b"".join(map(canonical_field, header.splitlines(keepends=True)))
    covered += canonical_field(field)[:-2]
    private = b64decode("nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=")
    signature = keyring._SIGN["ed25519-sha256"](Ed25519PrivateKey.from_private_bytes(private))(
        covered
    )
    assert b64encode(signature).decode() == (
        "/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11BusFa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw=="
    )


def test_messages_at_once_make_one_key(
    database: Inline, make: Make, monkeypatch: pytest.MonkeyPatch, quick: None
) -> None:
    made = []
    real = keyring._make

    def make_pair(*arguments: Any) -> dkim_keys.Key:
        made.append(arguments)
        return real(*arguments)

    monkeypatch.setattr(keyring, "_make", make_pair)
    held = Delayed(database)
    signer = make(store=held)
    outcomes = [Deferred.fromCoroutine(signer.sign(hashed(), reverse_path="")) for _ in range(3)]
    # Whoever began hangs up; the others have their key all the same.
    outcomes[0].cancel()
    outcomes[0].addErrback(lambda failure: failure.trap(CancelledError))
    held.holding = False
    held.release()
    assert outcomes[1].result == outcomes[2].result != b""
    assert len(made) == 1


def test_two_nodes_have_one_key(database: Inline, make: Make, quick: None) -> None:
    held = Delayed(database)
    nodes = make(store=held), make()
    slow = Deferred.fromCoroutine(nodes[0].sign(hashed(), reverse_path=""))
    fast = sign(nodes[1])
    held.holding = False
    held.release()
    (key,) = keys_of(database)
    assert slow.result == fast
    assert signatures.dkimpy(fast + LETTER, zone_of([key]))


def test_a_key_that_was_used_needs_no_look_at_the_store(
    database: Inline, make: Make, quick: None
) -> None:
    held = Delayed(database)
    held.holding = False
    signer = make(store=held)
    first = sign(signer)
    held.holding = True
    assert sign(signer) == first


def test_a_rotation_elsewhere_is_seen_at_once(database: Inline, make: Make, quick: None) -> None:
    signer = make()
    before = sign(signer)
    ring = Keyring(database, SECRETS, InlineThreads(), Dkim())
    key = now(prepare(ring, "example.com", dkim_keys.RSA))
    assert sign(signer) == before
    now(activate(database, key))
    after = sign(signer)
    assert tags_of(after)["s"] == "d2"
    zone = zone_of(keys_of(database))
    assert signatures.dkimpy(before + LETTER, zone)
    assert signatures.dkimpy(after + LETTER, zone)


# -- unsigned rather than lost ----------------------------------------------------------------


def test_switched_off_it_signs_nothing(database: Inline, make: Make) -> None:
    signer = make(enabled=False)
    assert not signer.is_enabled
    assert sign(signer) == b""
    assert keys_of(database) == []


def test_a_key_under_another_secret_is_told_once(
    make: Make, quick: None, logged: list[dict[str, Any]]
) -> None:
    assert sign(make())
    signer = make(secrets=Secrets(b"x" * 32))
    assert [sign(signer), sign(signer)] == [b"", b""]
    (text,) = warnings(logged)
    assert "example.com" in text
    assert "secret.key" in text


class Away:
    """A store that cannot be had."""

    def __init__(self, inline: Inline, error: Exception) -> None:
        self.changes = inline.changes
        self.error: Exception | None = error
        self.inline = inline

    async def read(self, work: Any, **rest: Any) -> Any:
        if self.error:
            raise self.error
        return await self.inline.read(work, **rest)

    async def write(self, work: Any, **rest: Any) -> Any:
        return await self.inline.write(work, **rest)


@pytest.mark.parametrize("error", [StoreUnavailable(detail="locked"), ZeroDivisionError()])
def test_without_the_store_mail_leaves_unsigned_and_signed_again_later(
    database: Inline,
    make: Make,
    quick: None,
    logged: list[dict[str, Any]],
    error: Exception,
) -> None:
    store = Away(database, error)
    signer = make(store=store)
    assert sign(signer) == b""
    assert len(warnings(logged)) == 1
    store.error = None
    assert sign(signer)


def test_a_message_that_cannot_be_signed_is_left_as_it_is(make: Make, quick: None) -> None:
    signer = make()
    assert sign(signer, b"Subject: from nobody\r\n\r\nhello\r\n", "a@example.com") == b""
    long = replace(hashed(), too_long=True)
    assert now(signer.sign(long, reverse_path="")) == b""


def test_the_private_key_is_sealed_in_its_row(database: Inline, make: Make, quick: None) -> None:
    sign(make())
    (key,) = keys_of(database)
    opened = keyring._open(key, SECRETS)
    assert opened.sign(b"x")
    assert key.private_key.startswith("v1:")
    other = replace(key, selector="d2")
    with pytest.raises(Exception, match="cannot be opened"):
        keyring._open(other, SECRETS)
