"""The side of SES that blocks: one call of its API, in a thread.

A letter that is nothing but addresses, a subject and a text leaves by ``SendEmail``; anything
more as it is, by ``SendRawEmail``. What went wrong becomes the reply that an SMTP host would
have given.
"""

from __future__ import annotations

import socket
from collections import OrderedDict
from collections.abc import Callable, Sequence
from email import message_from_bytes, policy
from email.message import Message
from email.utils import formataddr, getaddresses
from ipaddress import ip_address
from threading import Lock
from typing import Any, Final

from mailtwist.mail.words import decode_words
from mailtwist.net.urls import is_public
from mailtwist.queue.client_replies import one_line
from mailtwist.queue.ses_credentials import Credential
from mailtwist.queue.values import RemoteReply

CONNECT_S: Final = 10
READ_S: Final = 30
CLIENTS: Final = 16

# Fields that SendEmail writes itself, or has a place for.
_SIMPLE: Final = frozenset({
    "date", "from", "to", "cc", "reply-to", "subject", "message-id", "mime-version",
    "content-type", "content-transfer-encoding",
})  # fmt: skip
_PARTS: Final = {"text/plain": "Text", "text/html": "Html"}

# RFC 5321 §4.2.2 and RFC 3463: what an SMTP host would say.
_PERMANENT: Final = {
    "MessageRejected": (554, "5.7.1"),
    "MailFromDomainNotVerified": (550, "5.7.1"),
    "MailFromDomainNotVerifiedException": (550, "5.7.1"),
    "InvalidParameterValue": (501, "5.5.4"),
    "InvalidParameterCombination": (501, "5.5.4"),
    "ValidationError": (501, "5.5.4"),
}
# Who mends the credential or the account gets his mail sent.
_LOGIN: Final = frozenset({
    "AccessDenied", "AccessDeniedException", "ExpiredToken", "ExpiredTokenException",
    "IncompleteSignature", "InvalidAccessKeyId", "InvalidClientTokenId", "InvalidSecurity",
    "MissingAuthenticationToken", "NotAuthorized", "OptInRequired", "RequestExpired",
    "SignatureDoesNotMatch", "UnrecognizedClientException",
})  # fmt: skip
_LATER: Final = frozenset({
    "AccountSendingPausedException", "ConfigurationSetSendingPausedException", "InternalFailure",
    "LimitExceeded", "LimitExceededException", "RequestLimitExceeded", "RequestTimeout",
    "ServiceUnavailable", "Throttling", "ThrottlingException", "TooManyRequestsException",
})  # fmt: skip


class Clients:
    """Clients of boto3 by credential: making one takes long, and threads may share it."""

    def __init__(self, make: Callable[[Credential], Any] | None = None) -> None:
        self._make = make or _make
        self._known: OrderedDict[Credential, Any] = OrderedDict()
        self._lock = Lock()

    def of(self, credential: Credential) -> Any:
        # One at a time: sessions of boto3 share what they load.
        with self._lock:
            client = self._known.get(credential)
            if client is None:
                client = self._known[credential] = self._make(credential)
                if len(self._known) > CLIENTS:
                    self._known.popitem(last=False)
            self._known.move_to_end(credential)
            return client


def _make(credential: Credential) -> Any:
    import boto3
    from botocore.config import Config

    session = boto3.session.Session(
        aws_access_key_id=credential.access_key,
        aws_secret_access_key=credential.secret_key,
        aws_session_token=credential.token or None,
        region_name=credential.region,
    )
    config = Config(
        connect_timeout=CONNECT_S,
        read_timeout=READ_S,
        # The queue tries again.
        retries={"total_max_attempts": 1, "mode": "standard"},
        ignore_configured_endpoint_urls=True,
    )
    return session.client("ses", endpoint_url=credential.endpoint or None, config=config)


def send(
    clients: Clients,
    credential: Credential,
    sender: str,
    recipients: Sequence[str],
    octets: bytes,
) -> RemoteReply:
    """Send one message to at most 50 recipients; the one reply for all of them. Blocks."""
    refusal = _refusal_of_endpoint(credential)
    if refusal is not None:
        return refusal
    try:
        client = clients.of(credential)
        simple = _simple(octets, recipients)
        if simple is not None:
            answer = client.send_email(**simple)
        else:
            answer = client.send_raw_email(
                Source=sender, Destinations=list(recipients), RawMessage={"Data": octets}
            )
    except Exception as error:
        reply = _reply_of(error)
        if reply is None:
            raise
        return reply
    return RemoteReply(250, "2.0.0", one_line(f"Ok {answer['MessageId']}"), "end")


def _refusal_of_endpoint(credential: Credential) -> RemoteReply | None:
    """Of one that leads to a private address without being an administrator's."""
    if credential.is_trusted or not credential.endpoint:
        return None
    try:
        found = socket.getaddrinfo(credential.host, credential.port, type=socket.SOCK_STREAM)
    except OSError:
        return _ours(451, "4.4.3", "The endpoint of the credential has no address", "dns")
    if all(is_public(ip_address(str(address[0]).partition("%")[0])) for *_, address in found):
        return None
    return _ours(554, "5.7.1", "The endpoint of the credential is on a private network", "connect")


# -- SendEmail ------------------------------------------------------------------------------


def _simple(octets: bytes, recipients: Sequence[str]) -> dict[str, Any] | None:
    """The arguments of SendEmail; None: the message holds more than it can say."""
    message = message_from_bytes(octets, policy=policy.compat32)
    names = [name.lower() for name in message.keys()]  # noqa: SIM118  (as often as they stand)
    body = _body(message)
    if body is None or not _SIMPLE.issuperset(names) or len(set(names)) != len(names):
        return None
    found = {
        "Source": _unfolded(message, "From"),
        "Destination": _destination(message, recipients),
        "Message": {"Subject": _text(_decoded(_unfolded(message, "Subject"))), "Body": body},
    }
    reply_to = getaddresses([_unfolded(message, "Reply-To")])
    if reply_to and reply_to != [("", "")]:
        found["ReplyToAddresses"] = [_formatted(*each) for each in reply_to]
    return found


def _body(message: Message) -> dict[str, Any] | None:
    kind = message.get_content_type()
    parts: Any = message.get_payload() if kind == "multipart/alternative" else [message]
    body: dict[str, Any] = {}
    for part in parts if isinstance(parts, list) else ():
        name = _PARTS.get(part.get_content_type())
        content = part.get_payload(decode=True)
        if name is None or name in body or not isinstance(content, bytes):
            return None
        body[name] = _text(content.decode("utf-8", "replace"))
    return body or None


def _text(text: str) -> dict[str, str]:
    return {"Data": text, "Charset": "UTF-8"}


def _destination(message: Message, recipients: Sequence[str]) -> dict[str, list[str]]:
    """Whom the fields name, under the names that they have there; the others are blind copies."""
    left = {each.lower(): each for each in recipients}
    found: dict[str, list[str]] = {}
    for field, key in (("To", "ToAddresses"), ("Cc", "CcAddresses")):
        for name, address in getaddresses([_unfolded(message, field)]):
            if left.pop(address.lower(), None) is not None:
                found.setdefault(key, []).append(_formatted(name, address))
    if left:
        found["BccAddresses"] = list(left.values())
    return found


def _formatted(name: str, address: str) -> str:
    return formataddr((_decoded(name), address)) if name else address


def _decoded(value: str) -> str:
    return decode_words(value.encode("utf-8", "replace"))


def _unfolded(message: Message, name: str) -> str:
    return "".join(str(message.get(name, "")).splitlines())


# -- what went wrong ------------------------------------------------------------------------


def _reply_of(error: Exception) -> RemoteReply | None:
    """What a failure means for the queue; None: it is a bug of ours."""
    if isinstance(error, ImportError):
        return _ours(451, "4.3.5", "SES needs boto3: pip install 'mailtwist[ses]'", "connect")
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        ConnectionError,
        HTTPClientError,
        ParamValidationError,
    )

    if isinstance(error, ClientError):
        return _said(error.response)
    if isinstance(error, ParamValidationError):
        return _ours(554, "5.5.4", f"Not sent: {error}", "end")
    if isinstance(error, ConnectionError | HTTPClientError):
        # RFC 3463 §3.5: bad connection. A lane that sees it again and again rests.
        return _ours(451, "4.4.2", f"SES cannot be reached: {error}", "connect")
    if isinstance(error, BotoCoreError):
        return _ours(451, "4.3.5", f"SES cannot be called: {error}", "connect")
    return None


def _said(response: Any) -> RemoteReply:
    told = response.get("Error", {})
    name, text = str(told.get("Code", "")), one_line(f"{told.get('Code')}: {told.get('Message')}")
    http_status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if name in _LOGIN:
        return RemoteReply(454, "4.7.0", text, "auth")
    if name in _LATER or http_status >= 500 or http_status == 429:
        return RemoteReply(451, "4.3.2", text, "end")
    return RemoteReply(*_PERMANENT.get(name, (554, "5.0.0")), text, "end")


def _ours(code: int, status: str, text: str, stage: str) -> RemoteReply:
    return RemoteReply(code, status, one_line(text), stage, is_ours=True)
