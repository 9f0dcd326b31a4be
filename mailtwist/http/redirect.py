"""The ``http-redirect`` listener: what an ACME authority asks for is answered, all else moved.

The answer to any method is 301 to the same path and query at ``https://`` and the Host field,
without its port. The Host must be one, and only what is a path follows it: a request can't
make the answer point to anywhere else.

Standards: RFC 9112 §3.2 (forms of the target); RFC 9110 §7.2 (Host), §15.4.2 (301).
"""

from __future__ import annotations

import re
from contextvars import copy_context
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from typing_extensions import override

from mailtwist.errors import MailError, NotFound, ProtocolViolation
from mailtwist.http import challenges
from mailtwist.http.exchange import Answer, refusal, text_answer
from mailtwist.http.front import ALWAYS, Facts, tell
from mailtwist.http.ports import Challenges
from mailtwist.http.proxies import Client
from mailtwist.http.received import path_of, set_headers, set_status
from mailtwist.net.session_id import new_session_id, session_id

log = Logger()

_ABSOLUTE: Final = re.compile(rb"https?://([^/?#]*)(.*)", re.IGNORECASE | re.DOTALL)
# Labels of letters, digits, hyphens and underscores, or an IPv6 address; the port is left out.
_HOST: Final = re.compile(
    r"(?P<host>[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,251}[A-Za-z0-9_.])?|\[[0-9A-Fa-f:.]{2,45}\])"
    r"(?::[0-9]{0,5})?"
)
# What a Location may not hold as it is. RFC 3986 §2
_UNSAFE: Final = re.compile(rb"[^!$%&'()*+,\-./0-9:;=?@A-Z_a-z~\[\]]")
_READ: Final = frozenset({b"GET", b"HEAD"})


class Redirect(Resource):
    """The root of every ``http-redirect`` listener."""

    isLeaf = True  # noqa: N815

    def __init__(self, clock: Any, known: Challenges | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._clock = clock
        self._challenges = known

    @override
    def render(self, request: Any) -> Any:
        return copy_context().run(self._render, request)

    def _render(self, request: Any) -> Any:
        peer = getattr(request.getClientAddress(), "host", "")
        request_id = new_session_id()
        session_id.set(request_id)
        client = Client(peer, "http", "")
        request.facts = Facts(client, request_id, self._clock.seconds(), path_of(request))
        set_headers(request, [("X-Request-Id", request_id)])
        answering = Deferred.fromCoroutine(self._answered(request))
        request.notifyFinish().addErrback(lambda _: answering.cancel())
        answering.addErrback(lambda failure: failure.trap(CancelledError))
        return NOT_DONE_YET

    async def _answered(self, request: Any) -> None:
        try:
            answer = await self._answer(request)
        except MailError as error:
            answer = refusal(error)
        except CancelledError:
            raise
        except Exception:
            log.failure("http request failed", Failure())
            answer = refusal(MailError())
        set_status(request, answer.status)
        set_headers(request, ALWAYS)
        set_headers(request, answer.headers)
        set_headers(request, [("Content-Type", answer.content_type)])
        set_headers(request, [("Content-Length", str(len(answer.body)))])
        request.write(answer.body)
        request.finish()

    async def _answer(self, request: Any) -> Answer:
        path = path_of(request)
        if path.startswith(challenges.FOLDER) and request.method in _READ:
            if self._challenges is None:
                raise NotFound
            return await challenges.found(self._challenges, path.removeprefix(challenges.FOLDER))
        fields: list[bytes] = request.requestHeaders.getRawHeaders(b"host", [])
        place = location(request.uri, fields)
        return text_answer(f"{place}\n", 301).with_header("Location", place)

    def log(self, request: Any) -> None:
        tell(request, self._clock.seconds())


def location(target: bytes, hosts: list[bytes]) -> str:
    """Where a request for ``target`` is sent to; ``hosts``: its Host fields.

    Raises: ProtocolViolation when it does not say at which host it is meant.
    """
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is not None:
        # RFC 9112 §3.2.2: the Host field does not count then.
        hosts, target = [absolute[1]], absolute[2]
    if target == b"*" or not target.startswith(b"/"):
        # RFC 9110 §7.1: the server as a whole, or a query alone behind an absolute target.
        if target not in (b"", b"*") and not (absolute and target.startswith(b"?")):
            raise ProtocolViolation("The target of the request is no path")
        target = b"/" + target.removeprefix(b"*")
    if len(hosts) != 1:
        raise ProtocolViolation("The request needs one Host field")
    found = _HOST.fullmatch(hosts[0].decode("latin-1").strip())
    if found is None or ".." in found["host"]:
        raise ProtocolViolation("The Host field cannot be read")
    path = _UNSAFE.sub(lambda octet: b"%%%02X" % ord(octet[0]), target.partition(b"#")[0])
    return f"https://{found['host']}{path.decode('ascii')}"
