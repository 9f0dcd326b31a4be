from __future__ import annotations

import pytest

from mailtwist.config import load, overlay


def settings(**environ: str):
    return load(None, {"MAILTWIST_HOSTNAME": "", **environ})


@pytest.mark.parametrize(
    ("name", "one_name"),
    [
        ("imps.enabled", "imap.enabled"),
        ("imap.enabled", "imap.enabled"),
        ("dkim.selector", "mail.dkim_selector"),
        ("somebody.elses", "somebody.elses"),
    ],
)
def test_a_key_has_one_name_whichever_is_given(name, one_name):
    assert overlay.canonical(name) == one_name


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("imap.enabled", "true"),
        ("imps.enabled", "1"),
        ("imap.listen_interface", "0.0.0.0:465"),
        ("imap.listen_interface", ":1143"),
        ("hostname", "imps.example.com"),
        ("jwt.token.life.hours", "72"),
        ("limit.rate", '{"/ping": 2}'),
        ("limit.rate", '{"version":"default"}'),
        ("cors.config", '{\n "allowed_origins": ["https://a.example"]}'),
        ("mail.default_from", "noreply@example.com"),
        ("mail.default_from", ""),
        ("somebody.elses", "anything at all\nin two lines"),
    ],
)
def test_values_that_a_key_takes(name, value):
    overlay.check(name, value)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("imap.enabled", "perhaps", "true or false"),
        ("imap.listen_interface", "nowhere", "host:port"),
        ("imap.listen_interface", "0.0.0.0:99999", "port"),
        ("hostname", "two words", "no domain name"),
        ("jwt.token.life.hours", "0", "from 1"),
        ("jwt.token.life.hours", "9" * 10_000, "whole number"),
        ("limit.rate", "[1]", "JSON object"),
        ("limit.rate", "[" * 60_000, "JSON object"),
        ("cors.config", "{", "JSON object"),
        ("limit.max_connections", "-1", "from 0"),
        ("mail.default_from", "nobody", "mail address"),
        ("somebody.elses", "x" * 70_000, "longer"),
        ("somebody.elses", "a\0b", "NUL"),
    ],
)
def test_values_that_a_key_refuses(name, value, reason):
    with pytest.raises(ValueError, match=reason) as refused:
        overlay.check(name, value)
    assert len(str(refused.value)) < 500


@pytest.mark.parametrize("name", ["", "a b", "x" * 101, "a\nb", "../etc", "-x", "ä", "a?b", "a\0"])
def test_names_that_are_none(name):
    with pytest.raises(ValueError, match="must be a name"):
        overlay.check_name(name)


@pytest.mark.parametrize(
    "name",
    ["jwt.secret", "encryption.secret", "encryption.private_key.a@example.com", "smtp.password"],
)
def test_what_sounds_like_a_secret_is_one(name):
    overlay.check_name(name)
    assert overlay.is_secret(name)


@pytest.mark.parametrize("name", ["hostname", "jwt.token.issuer", "jwt.token.life.hours"])
def test_the_rest_is_none(name):
    assert not overlay.is_secret(name)


def test_stored_values_stand_over_defaults():
    changed = overlay.overlaid(
        settings(),
        {
            "hostname": "mx.example.com",
            "mail.dkim_selector": "k2",
            "mail.default_from": "noreply@example.com",
            "somebody.elses": "x",
        },
    )
    assert changed.hostname == "mx.example.com"
    assert changed.dkim.selector == "k2"
    assert changed.send.default_from == "noreply@example.com"
    assert changed.dkim.enabled
    assert changed.limits.recipients == 100


def test_what_a_source_gives_is_locked():
    given = settings(MAILTWIST_DKIM_SELECTOR="s1")
    assert overlay.overlaid(given, {"mail.dkim_selector": "k2"}).dkim.selector == "s1"
    assert overlay.locked_by(given, "mail.dkim_selector") == "environment MAILTWIST_DKIM_SELECTOR"
    assert overlay.locked_by(given, "dkim.selector") == overlay.locked_by(
        given, "mail.dkim_selector"
    )
    assert overlay.in_use(given, "mail.dkim_selector") == "s1"
    assert overlay.locked_by(given, "hostname") == ""
    assert overlay.locked_by(given, "imap.enabled") == ""


def test_nonsense_in_a_row_changes_nothing():
    assert overlay.overlaid(settings(), {"mail.default_from": "nobody"}) == settings()


def test_an_empty_hostname_means_the_machines():
    assert overlay.overlaid(settings(), {"hostname": ""}) == settings()


def test_defaults_are_text_that_the_keys_themselves_take():
    for key in overlay.KEYS:
        if key.default:
            overlay.check(key.name, key.default)
            key.kind.parse(key.default)
    assert overlay.default("limit.max_connections") == "100"
    assert overlay.default("mail.dkim_selector") == "d1"
    assert overlay.default("somebody.elses") == ""


@pytest.mark.parametrize("text, is_good", [("s" * 32, True), ("é" * 16, True), ("s" * 31, False)])
def test_a_signing_secret_is_no_short_one(text, is_good):
    if is_good:
        overlay.check("jwt.secret", text)
    else:
        with pytest.raises(ValueError):
            overlay.check("jwt.secret", text)
