"""Where a Redis is, read from its URL."""

from __future__ import annotations

import pytest

from mailtwist.config.redis import RedisServer, RedisUrl, read_redis

PASSWORD = "s:/@ö%"
QUOTED = "s%3A%2F%40%C3%B6%25"


@pytest.mark.parametrize(
    ("url", "server", "shown"),
    [
        ("redis://", RedisServer(), "redis://localhost:6379/0"),
        ("redis://cache", RedisServer("cache"), "redis://cache:6379/0"),
        ("REDIS://Cache:1234/7/", RedisServer("cache", 1234, database=7), "redis://cache:1234/7"),
        ("redis://cache?db=3", RedisServer("cache", database=3), "redis://cache:6379/3"),
        ("redis://:6379/0", RedisServer(), "redis://localhost:6379/0"),
        ("redis://[2001:db8::1]:1/2", RedisServer("2001:db8::1", 1, database=2), "[2001:db8::1]:1"),
        (f"redis://:{QUOTED}@h", RedisServer("h", password=PASSWORD), "redis://h:6379/0"),
        (
            f"rediss://me:{QUOTED}@h:1",
            RedisServer("h", 1, is_tls=True, username="me", password=PASSWORD),
            "rediss://h:1/0",
        ),
        ("unix:///run/a%20b.sock", RedisServer(path="/run/a b.sock"), "unix:///run/a b.sock"),
        (
            f"unix://me:{QUOTED}@/s?db=9",
            RedisServer(path="/s", username="me", password=PASSWORD, database=9),
            "unix:///s",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_url_names_a_server(url, server, shown):
    assert read_redis(url) == server
    assert RedisUrl().parse(url) == url
    # What the log says has no login in it.
    assert shown in read_redis(url).shown
    assert PASSWORD not in repr(server)


@pytest.mark.parametrize(
    "url",
    [
        "localhost:6379",
        "http://hunter2",
        "redis://hunter2:port",
        "redis://hunter2:0",
        "redis://hunter2:65536",
        "redis://hunter2/one",
        "redis://hunter2/1/2",
        "redis://hunter2/-1",
        "redis://hunter2/\u0663",
        "redis://hunter2/99999999999",
        "redis://hunter2/0?timeout=1",
        "redis://hunter2/0?db",
        "redis://:pass?hunter2=x@host",
        "redis://hunter2/0#1",
        "redis://[hunter2",
        "unix://hunter2/redis.sock",
        "unix:hunter2",
        "unix:///hunter2?db=x",
        "x" * 5000,
    ],
)
def test_what_names_none_is_refused_and_not_repeated(url):
    with pytest.raises(ValueError) as refused:
        RedisUrl().parse(url)
    assert "hunter2" not in str(refused.value)


def test_nothing_is_no_redis():
    assert RedisUrl().parse("") == ""
