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
from mailtwist.store import certificates, dkim_keys
from mailtwist.store.certificates import Row
from mailtwist.store.dkim_keys import ED25519, RSA, Key
from mailtwist.store.engine import Connection
from mailtwist.store.ids import now_us
from mailtwist.store.secrets import Secrets, Unreadable

RSA_BITS: Final = 2048
DEFAULT_SELECTOR: Final = "d1"
# Issuers of certificate rows whose keys nobody gave.
_MADE: Final = frozenset({certificates.SELF, certificates.ACME})

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
        if algorithm == RSA:
            given = await self.adopt(domain)
            if given is not None:
                return given
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

    async def adopt(self, domain: str) -> Key | None:
        """The key that somebody gave to the domain's certificate row since ours was made.

        None: there is none, or it is not RSA. Raises: MailError.
        """
        row = await self.database.read(partial(_newly_given, domain=domain, keys=self))
        if row is None:
            return None
        given = await self.threads.run(partial(_given, self._secrets, row, domain, self.configured))
        if given is None:
            return None
        adopted: Key = await self.database.write(partial(dkim_keys.adopt, key=given))
        return adopted

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


def _newly_given(connection: Connection, domain: str, keys: Keyring) -> Row | None:
    """The domain's certificate row, when its key was given, and later than ours was made."""
    row = certificates.of_hostname(connection, domain)
    if row is None or not row.sealed_key or row.issuer in _MADE:
        return None
    ours = dkim_keys.find(connection, domain, algorithm=RSA, configured=keys.configured)
    return row if ours is None or (row.generated_at or 0) > ours.created_at else None


def _given(secrets: Secrets, row: Row, domain: str, configured: str) -> Key | None:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        text = secrets.open(row.sealed_key, certificates.PURPOSE).encode("utf-8")
        # It was checked when it came.
        private = load_pem_private_key(text, None, unsafe_skip_rsa_key_validation=True)
    except (ValueError, Unreadable):
        return None
    if not isinstance(private, RSAPrivateKey):
        return None
    return _sealed(secrets, private, _public_rsa(private), (domain, configured, RSA, configured))


def _make(secrets: Secrets, domain: str, selector: str, algorithm: str, configured: str) -> Key:
    private, public = _MAKE[algorithm]()
    return _sealed(secrets, private, public, (domain, selector, algorithm, configured))


def _sealed(secrets: Secrets, private: Any, public: bytes, names: tuple[str, str, str, str]) -> Key:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    domain, selector, *_ = names
    encoded = private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return Key(
        *names,
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

    private = rsa.generate_private_key(public_exponent=65537, key_size=RSA_BITS)
    return private, _public_rsa(private)


def _public_rsa(private: Any) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return bytes(private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


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
