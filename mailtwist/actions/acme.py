"""Certificates from an authority, by action."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from mailtwist.actions.registry import Context, Input, Operation, Response, Services
from mailtwist.errors import MailError
from mailtwist.mail.permissions import Bit
from mailtwist.store.entities.certificates import CERTIFICATE
from mailtwist.store.entities.finding import checked_row
from mailtwist.store.entities.model import Item, Reading


class NoAuthority(MailError):
    """This process orders no certificates."""

    http_status = 503
    default_text = "Certificates are ordered by a running server alone"


async def generate_acme_certificate(
    context: Context, attributes: Mapping[str, Any], subject: Item | None
) -> Sequence[Response]:
    """Order a certificate for the row; it is in use when this answers.

    Raises: Refusal when the viewer may not change the row, ProtocolViolation, Conflict, and
    OrderFailed with the authority's reason.
    """
    assert subject is not None, "declared as needed"
    # Before the order: an authority counts it, whoever gets the certificate.
    await context.services.database.read(
        lambda connection: checked_row(
            Reading(connection, context.viewer, CERTIFICATE, columns=frozenset()),
            subject.id,
            Bit.UPDATE,
        )
    )
    await order(context.services, subject.id, str(attributes.get("email") or ""))
    return ()


async def order(services: Services, row_id: str, email: str) -> None:
    """The same for whoever may; ``email`` "": that of the settings, or of the account."""
    if services.issuance is None:
        raise NoAuthority
    await services.issuance.issue(row_id, email)


OPERATIONS: Final = (
    Operation(
        "certificate",
        "generate_acme_certificate",
        "Generate ACME certificate",
        generate_acme_certificate,
        inputs=(Input("email", label="E-mail"),),
        needs_subject=True,
    ),
)
