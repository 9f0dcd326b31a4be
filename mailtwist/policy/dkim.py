"""Signing of what leaves: which domain signs, with which keys (RFC 6376, RFC 8463).

A domain's keys make themselves when they are first needed. Whatever goes wrong, the
message leaves all the same, without a signature, and the log says so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger

from mailtwist.config import Settings
from mailtwist.errors import MailError
from mailtwist.mail.dkim import HashedMessage, author_domains, draft, finish
from mailtwist.policy.batched import Batched
from mailtwist.policy.hashing import Derivation
from mailtwist.policy.keyring import Keyring, SigningKey
from mailtwist.store.secrets import Secrets, Unreadable

log = Logger()

MAX_CACHED: Final = 1000
# A signing domain may be this many labels above the author's.
MAX_PARENTS: Final = 8


class Directory(Protocol):
    async def is_local(self, domain: str) -> bool: ...


class Signer:
    """Signs messages; one for the process.

    ``threads``: where keys are made and used, which keeps a processor busy for 100 and 0.3 ms.
    """

    def __init__(
        self,
        database: Any,
        directory: Directory,
        secrets: Secrets,
        *,
        settings: Settings,
        threads: Derivation,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._directory = directory
        self._secrets = secrets
        self._threads = threads
        self._signing = Batched(threads)
        self._now = now
        self._keys: dict[str, tuple[SigningKey, ...]] = {}
        self._waiting: dict[str, list[Deferred[tuple[SigningKey, ...]]]] = {}
        self._generation = 0
        self.configure(settings)
        database.changes.watch("dkim", self.clear)
        # Somebody may have given a domain a key of his own.
        database.changes.watch("certificate", self.clear)

    def configure(self, settings: Settings) -> None:
        """Take other settings."""
        self.is_enabled = settings.dkim.enabled
        self.keyring = Keyring(self._database, self._secrets, self._threads, settings.dkim)
        self.clear()

    def clear(self) -> None:
        """Forget the keys; they are read again."""
        self._generation += 1
        self._keys.clear()

    async def sign(
        self, hashed: HashedMessage, *, reverse_path: str, by_author: bool = True
    ) -> bytes:
        """The DKIM-Signature fields, whole lines; empty when it cannot be signed.

        ``by_author``: whether what From says is believed; else the reverse-path's domain signs.

        Raises nothing but CancelledError.
        """
        if not self.is_enabled:
            return b""
        try:
            return await self._sign(hashed, reverse_path, by_author)
        except CancelledError:
            raise
        except MailError as error:
            detail = error.detail or error.text
            log.warn("a message leaves without DKIM: {detail}", detail=detail)
        except Exception:
            log.failure("a message leaves without DKIM")
        return b""

    async def _sign(self, message: HashedMessage, reverse_path: str, by_author: bool) -> bytes:
        authors = author_domains(message.header) if by_author else ()
        domain = await self._domain_of((*authors, reverse_path.rpartition("@")[2]))
        if not domain:
            return b""
        keys = await self._keys_of(domain)
        if not keys:
            return b""
        return await self._signing.run(partial(fields, message, keys, int(self._now())))

    # -- whose signature ----------------------------------------------------------------------

    async def _domain_of(self, candidates: Iterable[str]) -> str:
        """The first of these domains that is ours, or that lies in one that is."""
        for candidate in candidates:
            for domain in _with_parents(candidate):
                if await self._directory.is_local(domain):
                    return domain
        return ""

    # -- keys ---------------------------------------------------------------------------------

    async def _keys_of(self, domain: str) -> tuple[SigningKey, ...]:
        """The keys of a domain; whoever comes while they are being made waits for the same."""
        known = self._keys.get(domain)
        if known is not None:
            return known
        mine: Deferred[tuple[SigningKey, ...]] = Deferred()
        waiting = self._waiting.setdefault(domain, [])
        waiting.append(mine)
        if len(waiting) == 1:
            # On its own: the peer whose message began this may hang up.
            loading = Deferred.fromCoroutine(self._load(domain))
            loading.addBoth(self._loaded, domain)
        return await mine

    def _loaded(self, result: Any, domain: str) -> None:
        for each in self._waiting.pop(domain):
            if not each.called:
                each.callback(result)

    async def _load(self, domain: str) -> tuple[SigningKey, ...]:
        generation, keyring = self._generation, self.keyring
        keys = []
        for algorithm in keyring.algorithms:
            stored = await keyring.active(domain, algorithm)
            try:
                keys.append(await keyring.open(stored))
            except Unreadable as error:
                # Said once: it stays so until a rotation brings another key.
                text = "mail from {domain} leaves without DKIM: {error}"
                log.error(text, domain=domain, error=error)
        if generation == self._generation:
            if len(self._keys) >= MAX_CACHED:
                self._keys.clear()
            self._keys[domain] = tuple(keys)
        return tuple(keys)


def _with_parents(domain: str) -> list[str]:
    if not domain or domain.startswith("["):
        return []
    labels = domain.split(".")
    parents = [".".join(labels[n:]) for n in range(1, len(labels))]
    return [domain, *parents[-MAX_PARENTS:]]


def fields(message: HashedMessage, keys: tuple[SigningKey, ...], now: int) -> bytes:
    """The signature fields of a message, one for each key; empty when it cannot be signed."""
    signed = b""
    for key in keys:
        drafted = draft(
            message, domain=key.domain, selector=key.selector, algorithm=key.algorithm, now=now
        )
        if drafted is None:
            return b""
        field, covered = drafted
        signed += finish(field, key.sign(covered))
    return signed
