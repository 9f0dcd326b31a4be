"""``template.render``: a Jinja2 template over what the outcome gives it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from mailtwist.actions.letters import invalid, text_of
from mailtwist.actions.registry import Call, Performed, Performer
from mailtwist.errors import ProtocolViolation

_OURS: Final = frozenset({"template", "html", "data"})
_TRUE: Final = frozenset({"true", "1"})


async def render(call: Call, attributes: Mapping[str, Any]) -> Performed:
    """The text under ``content``. The template sees ``data`` and the other attributes by name.

    Raises: ExpressionError, ProtocolViolation.
    """
    template = text_of("template", attributes.get("template"))
    if not template:
        raise ProtocolViolation("missing required field: template")
    data = attributes.get("data") or {}
    if not isinstance(data, Mapping):
        raise invalid("data", "an object is expected")
    scope = {**data, **{name: each for name, each in attributes.items() if name not in _OURS}}
    rendering = call.context.services.rendering
    assert rendering is not None, "there is one wherever actions run"
    is_html = text_of("html", attributes.get("html")) in _TRUE
    return Performed({"content": await rendering.render(template, scope, is_html=is_html)})


PERFORMERS: Final[Mapping[str, Performer]] = {"template.render": render}
