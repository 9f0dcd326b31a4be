"""Windows that count, in a Redis: the script that counts, and what it answers."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final, NamedTuple

from mailtwist.errors import ProtocolViolation
from mailtwist.net.redis_replies import Reply

# All windows count an event, or none does. Windows end: what is there keeps its end, and what
# has none, or one too far off, or is no count, is not from here and is begun anew.
SCRIPT: Final = b"""\
local found, taken = {}, 1
for i, key in ipairs(KEYS) do
    local limit, lasts = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
    local value, ends_in = redis.pcall('GET', key), redis.call('PTTL', key)
    local count = type(value) == 'string' and tonumber(value) or 0
    if ends_in <= 0 or ends_in > lasts then
        count = 0
    end
    if count <= 0 then
        count, ends_in = 0, lasts
    end
    if count >= limit then
        taken = 0
    end
    found[i] = {count, ends_in}
end
local answer = {taken}
for i, key in ipairs(KEYS) do
    local count, ends_in = found[i][1], found[i][2]
    if taken == 1 then
        if count == 0 then
            redis.call('SET', key, 1, 'PX', ends_in)
        else
            redis.call('INCR', key)
        end
        count = count + 1
    end
    answer[2 * i] = count
    answer[2 * i + 1] = ends_in
end
return answer
"""
SCRIPT_NAME: Final = hashlib.sha1(SCRIPT, usedforsecurity=False).hexdigest().encode("ascii")


class Window(NamedTuple):
    """At most ``limit`` events under a key, in the ``lasts_ms`` from the first on."""

    key: str
    limit: int
    lasts_ms: int


class Taken(NamedTuple):
    """What each window holds, the event included if it was taken, and when it ends."""

    is_taken: bool
    counts: Sequence[int]
    ends_in_ms: Sequence[int]


def taken(said: Reply, windows: Sequence[Window]) -> Taken:
    """Read what the script answered. Raises: ProtocolViolation."""
    numbers = [each for each in said if isinstance(each, int)] if isinstance(said, list) else []
    if len(numbers) != 1 + 2 * len(windows) or min(numbers) < 0:
        raise ProtocolViolation("an answer to another question")
    ends = [min(n, each.lasts_ms) for n, each in zip(numbers[2::2], windows, strict=True)]
    return Taken(numbers[0] == 1, numbers[1::2], ends)
