"""Settings of the LDAP server that knows the users."""

from __future__ import annotations

from dataclasses import dataclass

from mailtwist.config.declare import setting
from mailtwist.config.kinds import Duration, Flag, Path, Text
from mailtwist.config.names import Url


@dataclass(frozen=True, slots=True)
class Ldap:
    url: str = setting(
        Url(("ldap", "ldaps")),
        "",
        "Where it is; the port is 389, or 636 for `ldaps`.",
        example="ldap://ldap.example.com",
    )
    bind_dn: str = setting(
        Text(),
        "",
        "Who searches; empty: nobody, where the server lets anybody search.",
        example="cn=mail,dc=example,dc=com",
    )
    password: str = setting(Text(), "", "The password of `bind_dn`.", secret=True)
    base_dn: str = setting(
        Text(), "", "Below what users are searched for.", example="ou=people,dc=example,dc=com"
    )
    filter: str = setting(
        Text(),
        "(mail=%u)",
        "What finds a user's one entry: %u is the login, %n what stands before its @, %d what "
        "stands behind it.",
        example="(&(objectClass=inetOrgPerson)(mail=%u))",
    )
    starttls: bool = setting(
        Flag(), True, "Whether an `ldap` connection is encrypted before anything is said on it."
    )
    ca_file: str = setting(
        Path(),
        "",
        "The certificates that sign the server's, PEM; empty: those that the machine trusts.",
    )
    timeout: float = setting(
        Duration(1, 60), 10.0, "How long the server may take for one login.", unit="seconds"
    )
