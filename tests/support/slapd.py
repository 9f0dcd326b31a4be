"""A real LDAP server on free ports of 127.0.0.1, with two people in it."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from pathlib import Path
from urllib.parse import quote

from tests.support.ports import free_ports

BASE = "dc=example,dc=com"
ADMIN = f"cn=admin,{BASE}"
ADMIN_PASSWORD = "admin secret"
PASSWORD = "correct horse"

_CONFIGURATION = """\
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_ldif
pidfile {folder}/pid
TLSCertificateFile {folder}/cert.pem
TLSCertificateKeyFile {folder}/key.pem
{security}
database ldif
suffix "{base}"
rootdn "{admin}"
rootpw "{password}"
directory {folder}/db
access to attrs=userPassword by anonymous auth by * none
access to * by dn.exact="{admin}" write by * none
"""

_ENTRIES = f"""\
dn: {BASE}
objectClass: domain
dc: example

dn: cn=Alice A,{BASE}
objectClass: inetOrgPerson
sn: A
uid: alice
mail: alice@example.com
userPassword: {PASSWORD}

dn: cn=Star,{BASE}
objectClass: inetOrgPerson
sn: S
uid: star
mail: st*r@example.com
userPassword: {PASSWORD}

dn: cn=Twin 1,{BASE}
objectClass: inetOrgPerson
sn: T
mail: twin@example.com
userPassword: {PASSWORD}

dn: cn=Twin 2,{BASE}
objectClass: inetOrgPerson
sn: T
mail: twin@example.com
userPassword: {PASSWORD}

dn: cn=No Password,{BASE}
objectClass: inetOrgPerson
sn: N
mail: none@example.com
"""


def is_installed() -> bool:
    return Path("/usr/sbin/slapd").exists() and shutil.which("ldapmodify") is not None


class Slapd:
    """``security``: a line of configuration more, such as what to refuse in the clear."""

    def __init__(self, folder: Path, chain: bytes, key: bytes, *, security: str = "") -> None:
        self.folder = folder
        (folder / "db").mkdir(parents=True)
        (folder / "cert.pem").write_bytes(chain)
        (folder / "key.pem").write_bytes(key)
        (folder / "slapd.conf").write_text(
            _CONFIGURATION.format(
                folder=folder, base=BASE, admin=ADMIN, password=ADMIN_PASSWORD, security=security
            )
        )
        (folder / "entries.ldif").write_text(_ENTRIES)
        self.port, self.tls_port = free_ports(2)
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Slapd:
        configuration = str(self.folder / "slapd.conf")
        subprocess.run(
            ["/usr/sbin/slapadd", "-f", configuration, "-l", str(self.folder / "entries.ldif")],
            check=True,
            capture_output=True,
        )
        self.start()
        return self

    def start(self) -> None:
        urls = f"ldap://127.0.0.1:{self.port} ldaps://127.0.0.1:{self.tls_port} {self._socket}"
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                ["/usr/sbin/slapd", "-h", urls, "-f", str(self.folder / "slapd.conf"), "-d", "0"],
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + 30
        for port in (self.port, self.tls_port):
            while not _answers(port):
                assert self.process.poll() is None, (self.folder / "log").read_text()
                assert time.monotonic() < deadline, "slapd does not start"
                time.sleep(0.02)

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(30)
            self.process = None

    def __exit__(self, *exception: object) -> None:
        self.stop()

    @property
    def _socket(self) -> str:
        return "ldapi://" + quote(str(self.folder / "socket"), safe="")

    def change(self, text: str) -> None:
        """Run an LDIF change record as the administrator."""
        subprocess.run(
            ["ldapmodify", "-x", "-H", self._socket, "-D", ADMIN, "-w", ADMIN_PASSWORD],
            input=text.encode(),
            check=True,
            capture_output=True,
        )


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
