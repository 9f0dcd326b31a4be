"""What binds an exchange above TLS to this one TLS connection.

Both ends can compute it and nobody between them can, for he has two connections.

Standards: RFC 9266 (tls-exporter); RFC 5929 §4 (tls-server-end-point).
"""

from __future__ import annotations

from typing import Any, Final

LABEL: Final = b"EXPORTER-Channel-Binding"
OCTETS: Final = 32


def is_possible(transport: Any) -> bool:
    """Whether the connection is TLS, with one of the bindings."""
    return _tls_of(transport) is not None


def bindings(transport: Any) -> dict[str, bytes]:
    """The server's channel-binding data by type; empty without TLS."""
    connection = _tls_of(transport)
    if connection is None:
        return {}
    found = {}
    # RFC 9266 §4.2: in TLS 1.2 it is unique only with an extension that we can't ask about.
    if connection.get_protocol_version_name() == "TLSv1.3":
        found["tls-exporter"] = connection.export_keying_material(LABEL, OCTETS, b"")
    end_point = _end_point(connection)
    if end_point is not None:
        found["tls-server-end-point"] = end_point
    return found


def _tls_of(transport: Any) -> Any:
    """The OpenSSL connection, None without TLS."""
    get_handle = getattr(transport, "getHandle", None)
    handle = get_handle() if get_handle is not None else None
    return handle if hasattr(handle, "export_keying_material") else None


def _end_point(connection: Any) -> bytes | None:
    """The digest of our certificate, None for one whose signature has no digest of its own."""
    from cryptography.hazmat.primitives import hashes

    certificate = connection.get_certificate(as_cryptography=True)
    if certificate is None:
        return None
    algorithm = certificate.signature_hash_algorithm
    if algorithm is None:  # Ed25519
        return None
    # RFC 5929 §4.1
    if algorithm.name in {"md5", "sha1"}:
        algorithm = hashes.SHA256()
    digest: bytes = certificate.fingerprint(algorithm)
    return digest
