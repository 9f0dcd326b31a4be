"""The DKIM keys of domains: made at first need, kept sealed, opened for use."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from typing import Any, Final, TypeAlias

from mailtwist.config.outgoing import Dkim
from mailtwist.policy.hashing import Derivation
from mailtwist.store import dkim_keys
from mailtwist.store.dkim_keys import ED25519, RSA, Key
from mailtwist.store.ids import now_us
from mailtwist.store.secrets import Secrets

RSA_BITS: Final = 2048
DEFAULT_SELECTOR: Final = "d1"

Sign: TypeAlias = Callable[[bytes], bytes]


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key ready for use; ``sign`` takes the octets that the signature covers."""

    domain: str
    selector: str
    algorithm: str
    sign: Sign


class Keyring:
    """The keys of all domains under one configuration.

    ``threads``: where they are made and opened, which keeps a processor busy for 100 and 1 ms.
    """

    def __init__(
        self, database: Any, secrets: Secrets, threads: Derivation, settings: Dkim
    ) -> None:
        self.database = database
        self.threads = threads
        self.configured = configured_selector(settings)
        # RSA always, for not every verifier knows Ed25519.
        self.algorithms = (RSA, ED25519) if settings.ed25519 else (RSA,)
        self._secrets = secrets

    async def active(self, domain: str, algorithm: str = RSA) -> Key:
        """The key that signs for a domain, made where there is none. Raises: MailError."""
        found: Key | None = await self.database.read(
            lambda connection: dkim_keys.find(
                connection, domain, algorithm=algorithm, configured=self.configured
            )
        )
        if found is not None:
            return found
        made = await self.make(domain, selector_of(self.configured, algorithm), algorithm)
        established: Key = await self.database.write(
            lambda connection: dkim_keys.establish(connection, made)
        )
        return established

    async def make(self, domain: str, selector: str, algorithm: str) -> Key:
        """A new key, not stored yet."""
        return await self.threads.run(
            partial(_make, self._secrets, domain, selector, algorithm, self.configured)
        )

    async def open(self, key: Key) -> SigningKey:
        """Make a stored key ready for use. Raises: Unreadable."""
        return await self.threads.run(partial(_open, key, self._secrets))


def configured_selector(settings: Dkim) -> str:
    return settings.selector or DEFAULT_SELECTOR


def selector_of(configured: str, algorithm: str) -> str:
    """The selector of a domain's first key: each key needs a name of its own in DNS."""
    return f"{configured}-ed25519" if algorithm == ED25519 else configured


def _purpose(domain: str, selector: str) -> str:
    return f"dkim {selector}._domainkey.{domain}"


def _make(secrets: Secrets, domain: str, selector: str, algorithm: str, configured: str) -> Key:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    private, public = _MAKE[algorithm]()
    encoded = private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return Key(
        domain,
        selector,
        algorithm,
        configured,
        private_key=secrets.seal(b64encode(encoded).decode("ascii"), _purpose(domain, selector)),
        public_key=b64encode(public).decode("ascii"),
        created_at=now_us(),
    )


def _open(key: Key, secrets: Secrets) -> SigningKey:
    from cryptography.hazmat.primitives.serialization import load_der_private_key

    text = secrets.open(key.private_key, _purpose(key.domain, key.selector))
    # We made it ourselves; the validation of an RSA key costs more than a hundred signatures.
    private = load_der_private_key(b64decode(text), None, unsafe_skip_rsa_key_validation=True)
    return SigningKey(key.domain, key.selector, key.algorithm, _SIGN[key.algorithm](private))


def _make_rsa() -> tuple[Any, bytes]:
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    private = rsa.generate_private_key(public_exponent=65537, key_size=RSA_BITS)
    public = private.public_key()
    return private, public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _make_ed25519() -> tuple[Any, bytes]:
    from cryptography.hazmat.primitives.asymmetric import ed25519

    private = ed25519.Ed25519PrivateKey.generate()
    # RFC 8463 §4.2: the bare key, not SubjectPublicKeyInfo.
    return private, private.public_key().public_bytes_raw()


def _sign_rsa(private: Any) -> Sign:
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.hashes import SHA256

    return lambda covered: bytes(private.sign(covered, PKCS1v15(), SHA256()))


def _sign_ed25519(private: Any) -> Sign:
    # RFC 8463 §3: the hash is what is signed.
    return lambda covered: bytes(private.sign(sha256(covered).digest()))


_MAKE: Final[dict[str, Callable[[], tuple[Any, bytes]]]] = {
    RSA: _make_rsa,
    ED25519: _make_ed25519,
}
_SIGN: Final[dict[str, Callable[[Any], Sign]]] = {RSA: _sign_rsa, ED25519: _sign_ed25519}
