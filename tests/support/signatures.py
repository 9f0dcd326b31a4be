"""Two verifiers of DKIM signatures that share no code with ours, asking a DNS on loopback."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping

import dkim
import pytest

from tests.support.dns import DnsServer

# Prints "pass d1 example.com" for each signature that it knows the algorithm of.
_PERL = """
use Mail::DKIM::Verifier; use Mail::DKIM::DNS; use Net::DNS;
my $port = shift;
Mail::DKIM::DNS::resolver(Net::DNS::Resolver->new(
    nameservers => ["127.0.0.1"], port => $port, recurse => 1, tcp_timeout => 5, udp_timeout => 5));
my $verifier = Mail::DKIM::Verifier->new;
binmode STDIN;
$verifier->load(*STDIN);
print join(" ", $_->result, $_->selector, $_->domain), "\\n" for $verifier->signatures;
"""


def dkimpy(message: bytes, records: Mapping[str, str], index: int = 0) -> bool:
    """What dkimpy says of a message's signature; ``records``: TXT by name."""

    def txt(name: bytes, timeout: int = 5) -> bytes | None:
        found = records.get(name.decode("ascii").rstrip("."))
        return found.encode("ascii") if found else None

    try:
        return bool(dkim.DKIM(message).verify(index, dnsfunc=txt))
    except dkim.ValidationError:
        return False  # how it tells of another body hash


_PERL_SIGNER = """
use Mail::DKIM::Signer; use Mail::DKIM::PrivateKey;
my ($form, $file) = @ARGV;
my $signer = Mail::DKIM::Signer->new(Algorithm => "rsa-sha256", Method => $form,
    Domain => "example.com", Selector => "d1", KeyFile => $file);
binmode STDIN;
$signer->load(*STDIN);
print $signer->signature->as_string, "\\r\\n";
"""


def sign_by_mail_dkim(message: bytes, key_file: str, form: str) -> bytes:
    """The message with a signature of Perl's Mail::DKIM as d1 of example.com."""
    _need_mail_dkim()
    command = ["perl", "-e", _PERL_SIGNER, form, key_file]
    ended = subprocess.run(command, input=message, capture_output=True, check=True, timeout=60)
    return ended.stdout + message


def mail_dkim(message: bytes, server: DnsServer) -> list[str]:
    """What Perl's Mail::DKIM says; absent: skip, unless the real thing is required."""
    _need_mail_dkim()
    command = ["perl", "-e", _PERL, str(server.port)]
    ended = subprocess.run(command, input=message, capture_output=True, check=True, timeout=60)
    return ended.stdout.decode().splitlines()


def _need_mail_dkim() -> None:
    probe = ["perl", "-MMail::DKIM::Verifier", "-e", "1"]
    try:
        is_there = subprocess.run(probe, capture_output=True, check=False).returncode == 0
    except OSError:
        is_there = False
    if not is_there:
        reason = "Mail::DKIM (libmail-dkim-perl) is not installed"
        if os.environ.get("MAILTWIST_REQUIRE_REAL"):
            pytest.fail(reason)
        pytest.skip(reason)
