"""Contexts for outgoing TLS; handshakes themselves are in tests/queue/test_client_opening.py."""

from __future__ import annotations

from pathlib import Path

import pytest
from twisted.internet.task import Clock

from mailtwist.mail.host_names import is_address
from mailtwist.tls.outgoing import LIFETIME_S, Authorities, make_client_context
from tests.support.authority import Authority


def test_authorities_are_read_again_after_a_while(tmp_path: Path):
    clock = Clock()
    file = str(Authority(tmp_path).file)
    authorities = Authorities(clock.seconds)
    assert authorities.known(file) is None
    context = make_client_context(file)
    authorities.keep(file, context)
    clock.advance(LIFETIME_S - 1)
    assert authorities.known(file) is context
    assert authorities.known("") is None
    clock.advance(1)
    assert authorities.known(file) is None


def test_a_file_without_authorities_is_told_of_by_name(tmp_path: Path):
    file = tmp_path / "empty.pem"
    for content in (b"", b"no certificate"):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=str(file)):
            make_client_context(str(file))


@pytest.mark.parametrize(
    ("name", "expected"),
    [("127.0.0.1", True), ("2001:db8::1", True), ("mx.example.net", False), ("", False)],
)
def test_addresses_are_told_from_names(name, expected):
    assert is_address(name) is expected
