"""What an ACME authority asks for at a host name to see that it is ours.

Standards: RFC 8555 §8.3 (http-01).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from mailtwist.errors import NotFound
from mailtwist.http.exchange import Answer, Exchange, Route, text_answer
from mailtwist.http.ports import Challenges

FOLDER: Final = "/.well-known/acme-challenge/"
# An authority takes what is behind the token for the whole answer, spaces included.
CONTENT_TYPE: Final = "text/plain"

# RFC 8555 §8.3: base64url, at least 128 bits of it.
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")


def routes(challenges: Challenges) -> Iterator[Route]:
    async def answer(exchange: Exchange, token: str) -> Answer:
        return await found(challenges, token)

    yield Route(f"{FOLDER}<token>", ("GET",), answer)


async def found(challenges: Challenges, token: str) -> Answer:
    """The key authorization of a token. Raises: NotFound."""
    text = await challenges.answer(token) if _TOKEN.fullmatch(token) else None
    if text is None:
        raise NotFound
    return text_answer(text, content_type=CONTENT_TYPE)
