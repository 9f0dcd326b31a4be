"""What every request passes before its route, and every answer behind it.

In order: who is the client (trusted proxies), a request id, CORS, limits; then the route, which
klein finds where names are in it; then gzip and the headers that all answers bear. One front
serves all HTTP listeners of a process, so a limit is one limit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextvars import copy_context
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from klein import Klein
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request
from typing_extensions import override
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from mailtwist.errors import MailError, NotFound, ProtocolViolation
from mailtwist.http import cors, encoding, jsonapi, limits
from mailtwist.http.bodies import read_parameters
from mailtwist.http.drain import Drain
from mailtwist.http.exchange import (
    Answer,
    Exchange,
    Family,
    Parameters,
    Route,
    WrongMethod,
    refusal,
)
from mailtwist.http.identity import find_token, is_foreign_page
from mailtwist.http.ports import Parts
from mailtwist.http.proxies import Client, Proxies, is_host
from mailtwist.http.received import (
    add_header,
    header_of,
    is_text,
    path_of,
    query_of,
    routed_path_of,
    set_headers,
    set_status,
)
from mailtwist.http.status import Statistics
from mailtwist.mail.permissions import NOBODY, Viewer
from mailtwist.net.session_id import new_session_id, session_id

log = Logger()

# Nothing of ours is a page; what a browser takes for one must not run.
ALWAYS: Final = (("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff"))


@dataclass(slots=True)
class Facts:
    """What is known of a request while it is answered; the access log ends with it."""

    client: Client
    request_id: str
    began: float
    path: str = ""  # as routes are found by it
    user: str = ""
    rate: limits.Standing | None = None
    is_counted: bool = False  # among the requests at once


class Front(Resource):
    """The root of every HTTP listener."""

    isLeaf = True  # noqa: N815

    def __init__(
        self,
        parts: Parts,
        routes: Iterable[Route],
        *,
        clock: Any,
        statistics: Statistics | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        settings = parts.settings
        self._parts = parts
        self._clock = clock
        self._statistics = statistics or Statistics(clock.seconds)
        self._proxies = Proxies(settings.http.trusted_proxies if settings is not None else ())
        self._secure = _strict_transport(settings.http.hsts if settings is not None else 0)
        self._window = limits.Window()
        self._at_once = limits.AtOnce()
        self._families = tuple(parts.families)
        routes = tuple(routes)
        # Klein takes a while to find what a look into a table finds too.
        self._plain = {
            (method, route.rule): route
            for route in reversed(routes)
            for method in route.methods
            if "<" not in route.rule
        }
        self._routed = _routed(routes, self._serve, self._refuse_route)

    # -- before the route -------------------------------------------------------------------

    @override
    def render(self, request: Any) -> Any:
        context = copy_context()
        return context.run(self._render, request)

    def _render(self, request: Any) -> Any:
        header = header_of(request)
        peer = getattr(request.getClientAddress(), "host", "")
        client = self._proxies.client(peer, header, is_secure=request.isSecure())
        request_id = client.request_id or new_session_id()
        session_id.set(request_id)
        facts = Facts(client, request_id, self._clock.seconds(), routed_path_of(request))
        request.facts = facts
        refused = self._admit(request, facts, header)
        if refused is not None:
            request.write(self._written(request, refused))
            request.finish()
            return NOT_DONE_YET
        route = self._plain.get((request.method.decode("latin-1"), facts.path))
        return self._routed.render(request) if route is None else self._run(request, route)

    def _admit(self, request: Any, facts: Facts, header: Callable[[str], str]) -> Answer | None:
        """The answer to a request that gets no further; None: it does."""
        path = facts.path
        set_headers(request, [("X-Request-Id", facts.request_id)])
        if facts.client.scheme == "https":
            set_headers(request, self._secure)
        family = self._family(path)
        refuse = family.refuse if family is not None else jsonapi.refuse
        host = facts.client.host
        if host and not is_host(host):
            return self.refused(path, ProtocolViolation("The Host field cannot be read"))
        if not is_text(request.path):
            return self.refused(path, ProtocolViolation("The path is not UTF-8"))
        policy = self._policy(family)
        origin, method = header("origin"), request.method.decode("latin-1")
        wanted = header("access-control-request-method")
        if cors.is_preflight(method, origin, wanted):
            asked = header("access-control-request-headers")
            found = policy.preflight_headers(origin, method=wanted, headers=asked)
            return refuse(_forbidden_origin()) if found is None else Answer(204, headers=found)
        set_headers(request, policy.answer_headers(origin))
        over = self._limited(request, facts, path)
        return refuse(over).with_header("Retry-After", "1") if over is not None else None

    def _limited(self, request: Any, facts: Facts, path: str) -> MailError | None:
        address = facts.client.address
        rates = limits.rates(self._value("limit.rate"))
        facts.rate = self._window.count(address, path, rates, self._clock.seconds())
        set_headers(request, facts.rate.headers)
        if facts.rate.is_over:
            return limits.TooMany()
        if not self._at_once.enter(address, limits.at_once(self._value("limit.max_connections"))):
            return limits.TooManyAtOnce()
        facts.is_counted = True
        request.notifyFinish().addBoth(lambda _: self._stand_aside(facts))
        return None

    def _stand_aside(self, facts: Facts) -> None:
        """Count a request out of those that are answered at once."""
        if facts.is_counted:
            facts.is_counted = False
            self._at_once.leave(facts.client.address)

    def _family(self, path: str) -> Family | None:
        for family in self._families:
            if family.covers(path):
                return family
        return None

    def _policy(self, family: Family | None) -> cors.Policy:
        if family is not None and family.policy is not None:
            return family.policy()
        return cors.policy(self._value("cors.config"))

    def refused(self, path: str, error: MailError) -> Answer:
        """How an error of no route looks at a path."""
        family = self._family(path)
        if family is not None:
            return family.refuse(error)
        return jsonapi.refuse(error) if path.startswith("/api/") else refusal(error)

    def _value(self, name: str) -> str:
        values = self._parts.values
        return values.get(name) if values is not None else ""

    # -- the route --------------------------------------------------------------------------

    def _run(self, request: Any, route: Route) -> int:
        """Answer by a route that is known; what klein does with one that it found."""
        serving = Deferred.fromCoroutine(self._serve(request, route, {}))
        request.notifyFinish().addErrback(lambda _: serving.cancel())
        serving.addErrback(partial(self._failed, request))
        serving.addCallback(partial(_finish, request))
        serving.addErrback(_unanswered)
        return NOT_DONE_YET

    def _failed(self, request: Any, failure: Failure) -> Any:
        """The answer where the one that there was could not be written."""
        if failure.check(CancelledError):
            return failure
        return self._refuse_route(request, failure)

    async def _serve(self, request: Any, route: Route, path: dict[str, str]) -> bytes:
        try:
            answer = await route.run(self._exchange(request), **path)
        except CancelledError:
            # The client went away; there is nobody to answer.
            raise
        except MailError as error:
            if error.http_status >= 500:
                log.warn("http request refused", reason=error.text, detail=error.detail)
            answer = route.refuse(error)
        except Exception:
            log.failure("http request failed", Failure())
            answer = route.refuse(MailError())
        if answer.stream is not None:
            return await _streamed(request, answer)
        return self._written(request, await self._packed(request, answer))

    def _exchange(self, request: Any) -> Exchange:
        """Raises: ProtocolViolation for a query string that cannot be read."""
        header = header_of(request)
        facts: Facts = request.facts
        parameters: Parameters = read_parameters(query_of(request))
        origin = facts.client.origin
        token = find_token(header, parameters, is_foreign_page=is_foreign_page(header, origin))
        found: Viewer | None = None

        async def identify_again() -> Viewer:
            identities = self._parts.identities
            if identities is None or not token.text:
                return NOBODY
            return await identities.viewer(token.text)

        async def identify() -> Viewer:
            nonlocal found
            if found is None:
                found = await identify_again()
                facts.user = found.email or found.reference_id
            return found

        return Exchange(
            method=request.method.decode("latin-1"),
            path=path_of(request),
            parameters=parameters,
            header=header,
            body=request.content.read(),
            identify=identify,
            identify_again=identify_again,
            client=facts.client.address,
            origin=origin,
            request_id=facts.request_id,
            by_cookie=token.by_cookie,
            pause=self._pause,
            stand_aside=partial(self._stand_aside, facts),
        )

    def _refuse_route(self, request: Any, failure: Failure) -> bytes:
        error, path = failure.value, request.facts.path
        if not isinstance(error, HTTPException):
            log.failure("http request failed", failure)
            return self._written(request, self.refused(path, MailError()))
        set_headers(
            request, [(name, value) for name, value in error.get_headers() if name == "Allow"]
        )
        return self._written(request, self.refused(path, _unrouted(error)))

    # -- behind it --------------------------------------------------------------------------

    async def _packed(self, request: Any, answer: Answer) -> Answer:
        """The answer as the client takes it: gzip where that is worth it."""
        if not encoding.is_worth(answer.content_type, len(answer.body)) or not self._packs():
            return answer
        add_header(request, "Vary", "Accept-Encoding")
        if not encoding.accepts_gzip(header_of(request)("accept-encoding")):
            return answer
        set_headers(request, [("Content-Encoding", "gzip")])
        return replace(answer, body=await encoding.gzip(answer.body, self._pause))

    def _written(self, request: Any, answer: Answer) -> bytes:
        """Set what goes before a body that is complete, and return it."""
        set_status(request, answer.status)
        set_headers(request, ALWAYS)
        if answer.body:
            set_headers(request, [("Content-Type", answer.content_type)])
        set_headers(request, answer.headers)
        if answer.status != 204:
            set_headers(request, [("Content-Length", str(len(answer.body)))])
        return answer.body

    async def _pause(self) -> None:
        await deferLater(self._clock, 0)

    def _packs(self) -> bool:
        return self._value("gzip.enable").strip().lower() not in ("false", "0", "no", "off")

    def log(self, request: Any) -> None:
        """One line for a request that was answered."""
        if tell(request, self._clock.seconds()):
            self._statistics.count(request.code)


def _finish(request: Any, body: bytes) -> None:
    request.write(body)
    # Without a channel the client is gone.
    if request.channel is not None:
        request.finish()


def _unanswered(failure: Failure) -> None:
    if not failure.check(CancelledError):
        log.failure("http answer failed", failure)


async def _streamed(request: Any, answer: Answer) -> bytes:
    """Send an answer whose body is made while it is read."""
    assert answer.stream is not None
    set_status(request, answer.status)
    set_headers(request, (*ALWAYS, ("Content-Type", answer.content_type), *answer.headers))
    drain = Drain(request)
    try:
        await answer.stream(drain)
    except CancelledError:
        raise  # the client went away
    except Exception as error:
        # The head is out: only a connection that breaks says that this is not the whole.
        if isinstance(error, MailError):
            log.warn("http answer broke off", reason=error.text, detail=error.detail)
        else:
            log.failure("http answer broke off", Failure())
        request.channel.forceAbortClient()
    finally:
        drain.close()
    return b""


def tell(request: Any, now: float) -> bool:
    """Log a request that was answered; False for one that never was read.

    Query strings may hold tokens: not here.
    """
    facts: Facts | None = getattr(request, "facts", None)
    if facts is None:
        return False
    log.info(
        "http request",
        session=facts.request_id,
        method=request.method.decode("latin-1"),
        path=path_of(request),
        status=request.code,
        octets=request.sentLength,
        ms=round((now - facts.began) * 1000, 1),
        client=facts.client.address,
        user=facts.user,
    )
    return True


def _routed(routes: Iterable[Route], serve: Any, refuse: Any) -> Resource:
    """Let klein find the route; ``serve(request, route, path)`` answers what it finds."""
    app: Any = Klein()
    # What is not a route is not found; nothing is redirected to where it might be.
    app.url_map.merge_slashes = False
    app.url_map.strict_slashes = True

    def endpoint(route: Route) -> Callable[..., Any]:
        def run(request: Request, **path: str) -> Any:
            return serve(request, route, path)

        return run

    for number, route in enumerate(routes):
        app.route(route.rule, methods=list(route.methods), endpoint=f"{number} {route.rule}")(
            endpoint(route)
        )
    app.handle_errors(Exception)(refuse)
    found: Resource = app.resource()
    return found


def _strict_transport(seconds: float) -> tuple[tuple[str, str], ...]:
    # RFC 6797 §7.2: never where TLS is not there.
    return (("Strict-Transport-Security", f"max-age={int(seconds)}"),) if seconds else ()


def _unrouted(error: HTTPException) -> MailError:
    """No route, or not this method."""
    if isinstance(error, MethodNotAllowed):
        refused = WrongMethod()
        refused.allowed = tuple(sorted(error.valid_methods or ()))
        return refused
    found = NotFound() if error.code == 404 else MailError(error.name)
    found.http_status = error.code or 500
    return found


def _forbidden_origin() -> MailError:
    error = MailError("This origin may not")
    error.http_status = 403
    return error
