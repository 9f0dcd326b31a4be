"""Certificates: one signed by ourselves into a row, and what a row holds as a file."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any, Final

from mailtwist.actions.registry import Context, Input, Operation, Response, notify
from mailtwist.errors import NotFound
from mailtwist.store.entities.model import Item

_CONTENT_TYPE: Final = "application/x-x509-ca-cert"


async def generate_self_certificate(
    context: Context, attributes: Mapping[str, Any], subject: Item | None
) -> Sequence[Response]:
    """Put a new key and certificate into the row, whatever it held.

    Raises: Refusal when the viewer may not change the row, ProtocolViolation.
    """
    assert subject is not None, "declared as needed"
    hostname, resources = str(subject.attributes["hostname"]), context.services.resources
    values = await resources.certificates.signed(
        hostname,
        names=str(attributes.get("hostname") or ""),
        kind=str(attributes.get("key_type") or ""),
    )
    await resources.update(context.viewer, subject.entity, subject.id, values, {})
    return (notify(f"Certificate generated for {hostname}", kind="message"),)


async def download_certificate(
    _context: Context, _attributes: Mapping[str, Any], subject: Item | None
) -> Sequence[Response]:
    return (_file(subject, "certificate_pem", "Certificate", ".pem.crt"),)


async def download_public_key(
    _context: Context, _attributes: Mapping[str, Any], subject: Item | None
) -> Sequence[Response]:
    return (_file(subject, "public_key_pem", "Public key", ".pem.key.pub"),)


def _file(subject: Item | None, column: str, what: str, suffix: str) -> Response:
    """Raises: NotFound while the row holds none."""
    assert subject is not None, "declared as needed"
    hostname = subject.attributes["hostname"]
    pem = subject.attributes.get(column) or ""
    if not pem:
        raise NotFound(f"There is no certificate for {hostname} yet")
    return Response(
        "client.file.download",
        {
            "content": b64encode(pem.encode("utf-8")).decode("ascii"),
            "contentType": _CONTENT_TYPE,
            "message": f"{what} for {hostname}",
            "name": f"{hostname}{suffix}",
        },
    )


OPERATIONS: Final = (
    Operation(
        "certificate",
        "generate_self_certificate",
        "Generate self certificate",
        generate_self_certificate,
        inputs=(Input("hostname", label="Host names"), Input("key_type", label="Key")),
        needs_subject=True,
    ),
    *(
        Operation("certificate", name, label, run, needs_subject=True)
        for name, label, run in (
            ("download_certificate", "Download certificate", download_certificate),
            ("download_public_key", "Download public key", download_public_key),
        )
    ),
)
