"""Users that a file names: JSON, or a ``user:hash`` a line.

The content tells which: JSON begins with a bracket. In JSON stand
``{"users": [{"username": ..., "password": ...}]}``, such a list alone, or
``{"address": "hash"}``. Hashes are those of bcrypt, ``{SSHA}`` and its longer kin, keys of
SCRAM-SHA-256, and passwords as they are.

An edit is picked up by the next login. One that can't be read changes nothing and is logged.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from twisted.logger import Logger

from mailtwist.errors import ProtocolViolation
from mailtwist.mail.address import parse_address
from mailtwist.policy.lockout import ACCOUNT
from mailtwist.policy.passwords import BARE_BCRYPT, DIGEST, PLAIN, SCRAM_SHA_256, Scram
from mailtwist.store import accounts, logins
from mailtwist.store.accounts import Verifier
from mailtwist.store.engine import Connection
from mailtwist.store.logins import Active

log = Logger()

MAX_OCTETS: Final = 16 << 20
MAX_USERS: Final = 100_000
MAX_LINE: Final = 4096
# 4 s of a processor for one login; more would be a way to keep it busy.
MAX_COST: Final = 16
# A file that changed this short before it was read may change again within one tick of its time.
TICK_S: Final = 0.1

# The names under which programs write down who it is and what proves it.
_NAMES: Final = ("username", "email", "user", "address")
_SECRETS: Final = ("password", "password_hash", "hash")

_BCRYPT: Final = re.compile(r"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}")
_SCHEME: Final = re.compile(r"\{([A-Za-z0-9.-]+)\}(.*)", re.DOTALL)
_DIGESTS: Final = {"SSHA": "sha1", "SSHA256": "sha256", "SSHA512": "sha512"}


class Unreadable(ValueError):
    """The file is none of ours; the text says why and repeats no password."""


# -- what one user's secret is --------------------------------------------------------------


def verifier_of(secret: str) -> Verifier:
    """Tell the kind of a hash. Raises: Unreadable for one that can't be checked here."""
    scheme = _SCHEME.fullmatch(secret)
    if scheme is not None:
        return _of_scheme(scheme[1].upper(), scheme[2])
    if secret.startswith("SCRAM-SHA-256$"):
        try:
            Scram.parse(secret)
        except ValueError:
            raise Unreadable("broken keys of SCRAM-SHA-256") from None
        return Verifier(SCRAM_SHA_256, secret)
    if re.match(r"\$\w+\$", secret):
        return _bcrypt(secret)
    if not secret:
        raise Unreadable("an empty password")
    return Verifier(PLAIN, secret)


def _of_scheme(scheme: str, rest: str) -> Verifier:
    if scheme in {"BLF-CRYPT", "BCRYPT", "CRYPT"}:
        return _bcrypt(rest)
    if scheme in {"PLAIN", "CLEARTEXT"}:
        if not rest:
            raise Unreadable("an empty password")
        return Verifier(PLAIN, rest)
    if scheme not in _DIGESTS:
        raise Unreadable(f"a hash of kind {{{scheme}}}, which is not known here")
    name = _DIGESTS[scheme]
    size = hashlib.new(name).digest_size
    try:
        octets = base64.b64decode(rest, validate=True)
    except ValueError:
        octets = b""
    if len(octets) < size:
        raise Unreadable(f"a broken {{{scheme}}}")
    return Verifier(DIGEST, f"{name}:{octets[:size].hex()}:{octets[size:].hex()}")


def _bcrypt(text: str) -> Verifier:
    found = _BCRYPT.fullmatch(text)
    # Another hash is no password: whoever has read it could log in with it.
    if found is None:
        raise Unreadable("a hash that is not bcrypt's")
    if not 4 <= int(found[1]) <= MAX_COST:
        raise Unreadable(f"a bcrypt hash of cost {found[1]}; {MAX_COST} is the most")
    return Verifier(BARE_BCRYPT, text)


# -- the file -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Users:
    """What a file says. ``problems``: of users who can't log in for them.

    ``cost``: of its dearest bcrypt hash, in two digits; "" when there is none.
    """

    verifiers: Mapping[str, Verifier]
    cost: str = ""
    problems: tuple[str, ...] = ()


def parse(content: bytes) -> Users:
    """Read a whole file. Raises: Unreadable."""
    if len(content) > MAX_OCTETS:
        raise Unreadable(f"more than {MAX_OCTETS} octets")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Unreadable("it is not UTF-8") from None
    pairs = _of_json(text) if text.lstrip()[:1] in {"{", "["} else _of_lines(text)
    found: dict[str, Verifier] = {}
    problems = []
    for place, name, secret in pairs:
        if len(found) >= MAX_USERS:
            raise Unreadable(f"more than {MAX_USERS} users")
        try:
            found[_folded(name)] = verifier_of(secret)
        except Unreadable as error:
            problems.append(f"{place}: {error}")
    costs = [each.verifier[4:6] for each in found.values() if each.kind == BARE_BCRYPT]
    return Users(found, max(costs, default=""), tuple(problems))


def _folded(name: str) -> str:
    """Fold a name, with a domain or without. Raises: Unreadable."""
    ending = "" if "@" in name else "@example.invalid"
    try:
        return parse_address(name + ending).folded.removesuffix(ending)
    except ProtocolViolation:
        raise Unreadable("the user's name is no address") from None


def _of_lines(text: str) -> Iterator[tuple[str, str, str]]:
    for n, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        name, colon, secret = stripped.partition(":")
        if not colon or len(line) > MAX_LINE:
            raise Unreadable(f"line {n} is no user:hash")
        yield f"line {n}", name.strip(), secret.strip()


def _of_json(text: str) -> Iterable[tuple[str, str, str]]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        raise Unreadable("it is no JSON") from None
    if isinstance(content, dict) and isinstance(content.get("users"), list | dict):
        content = content["users"]
    if isinstance(content, dict):
        given = [(f"user {n}", *pair) for n, pair in enumerate(content.items(), 1)]
    else:
        given = [(f"user {n}", *_of_object(n, each)) for n, each in enumerate(content, 1)]
    for place, name, secret in given:
        if not isinstance(name, str) or not isinstance(secret, str):
            raise Unreadable(f"{place} has no username and password")
    return given


def _of_object(n: int, item: Any) -> tuple[Any, Any]:
    if not isinstance(item, dict):
        raise Unreadable(f"user {n} is no object")
    name, secret = (
        next((item[key] for key in keys if key in item), None) for keys in (_NAMES, _SECRETS)
    )
    return name, secret


# -- the back-end ---------------------------------------------------------------------------


class File:
    """The users of one file. ``domain`` tells the domain of those whose names have none.

    Any thread may ask; the file is read in the one that first finds it changed.
    """

    scope = ACCOUNT
    ask = None

    def __init__(self, path: str, *, domain: Callable[[], str]) -> None:
        self._path = path
        self._domain = domain
        self._lock = threading.Lock()
        self._stamp: object = None
        self._users = Users({})
        self.generation = 0  # rises with each content that was taken

    def find(self, connection: Connection, username: str) -> Active | None:
        self.refresh()
        verifier = self._verifier(username)
        number = logins.mailbox_of(connection, username) if verifier is not None else None
        if verifier is None or number is None:  # unknown, or his account here is disabled
            return None
        return Active(number, username, _version(verifier))

    def verifiers(self, connection: Connection, who: Active) -> Sequence[Verifier]:
        verifier = self._verifier(who.username)
        return () if verifier is None else (verifier,)

    def unknown(self) -> Sequence[Verifier]:
        cost = self._users.cost
        return (Verifier(BARE_BCRYPT, f"$2b${cost}$" + "." * 53),) if cost else ()

    def addresses(self, connection: Connection, who: Active) -> frozenset[str]:
        return own_addresses(connection, who)

    def _verifier(self, username: str) -> Verifier | None:
        known = self._users.verifiers
        local_part, _, domain = username.rpartition("@")
        without = known.get(local_part) if domain and domain == self._domain() else None
        return known.get(username) or without

    def refresh(self) -> None:
        """Read the file when it is another one than it was. Blocks; never raises."""
        if self._stamp is not None and self._stamp == self._current_stamp():
            return
        with self._lock:
            # From before the reading, so that an edit meanwhile is seen the next time.
            stamp = self._current_stamp()
            if self._stamp is None or self._stamp != stamp:
                self._load()
                self._stamp = stamp

    def _current_stamp(self) -> object:
        try:
            state = os.stat(self._path)
        except OSError as error:
            return error.errno
        is_settled = abs(time.time() - state.st_mtime) > TICK_S
        return state.st_mtime_ns, state.st_size, state.st_ino, is_settled

    def _load(self) -> None:
        try:
            with open(self._path, "rb") as file:
                users = parse(file.read(MAX_OCTETS + 1))
        except OSError as error:
            self._keep(error.strerror or "it can't be read")
        except Unreadable as error:
            self._keep(str(error))
        else:
            for problem in users.problems[:20]:
                log.warn("{path}: {problem}: he can't log in", path=self._path, problem=problem)
            log.info("{path}: {count} users", path=self._path, count=len(users.verifiers))
            if users != self._users:
                self._users = users
                self.generation += 1

    def _keep(self, reason: str) -> None:
        log.warn(
            "{path}: {reason}; the {count} users known before stay",
            path=self._path,
            reason=reason,
            count=len(self._users.verifiers),
        )


def own_addresses(connection: Connection, who: Active) -> frozenset[str]:
    """The address that is the login itself, its aliases, and those of his mailbox."""
    own = {who.username} | logins.aliases(connection, who.username)
    if who.account_id:
        own |= accounts.addresses(connection, who.account_id)
    return frozenset(own)


def _version(verifier: Verifier) -> int:
    spelled = f"{verifier.kind} {verifier.verifier}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(spelled).digest()[:8], "big")
