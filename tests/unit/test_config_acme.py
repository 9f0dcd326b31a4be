"""The settings of orders at a certificate authority."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mailtwist.config import InvalidConfiguration, describe, load
from mailtwist.config.given import DECLARATIONS


def loaded(tmp_path: Path, text: str) -> Any:
    path = tmp_path / "mailtwist.yaml"
    path.write_text(text)
    return load(path, {}).acme


@pytest.mark.parametrize(
    "key, default",
    [
        ("acme.directory_url", "https://acme-v02.api.letsencrypt.org/directory"),
        ("acme.email", ""),
        ("acme.ca_file", ""),
        ("acme.challenge", "http-01"),
        ("acme.key_type", "ecdsa"),
        ("acme.dns_server", ""),
        ("acme.dns_hook", ()),
        ("acme.dns_wait", 10.0),
    ],
)
def test_orders_have_their_settings_and_all_of_them_act(key: str, default: Any) -> None:
    assert describe.value_of(load(None, {}), key) == default
    assert DECLARATIONS[key].inactive == ""


@pytest.mark.parametrize(
    "text, reason",
    [
        ("acme: {directory_url: 'http://127.0.0.1/dir'}", "acme.directory_url: .*https"),
        ("acme: {challenge: tls-alpn-01}", "acme.challenge: "),
        ("acme: {key_type: dsa}", "acme.key_type: "),
        ("acme: {email: nobody}", "acme.email: "),
        ("acme: {dns_server: ':53'}", "acme.dns_server: must name a host"),
        ("acme: {dns_wait: 2h}", "acme.dns_wait: "),
        ("acme: {unknown: 1}", "acme.unknown"),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_its_key(
    tmp_path: Path, text: str, reason: str
) -> None:
    with pytest.raises(InvalidConfiguration, match=reason):
        loaded(tmp_path, text)


def test_a_hook_is_a_list_and_a_port_has_a_default(tmp_path: Path) -> None:
    found = loaded(tmp_path, "acme: {dns_hook: [/bin/x, 'two words'], dns_server: ns.example}")
    assert found.dns_hook == ("/bin/x", "two words")
    assert found.dns_server == "ns.example:53"


@pytest.mark.parametrize("name", ["dns_key_secret", "eab_hmac_key"])
def test_secrets_are_not_shown(tmp_path: Path, name: str) -> None:
    found = loaded(tmp_path, f"acme: {{{name}: c2VjcmV0}}")
    assert getattr(found, name) == "c2VjcmV0"
    assert "c2VjcmV0" not in repr(found)
