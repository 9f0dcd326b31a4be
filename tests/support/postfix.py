"""A real Postfix of our own: a private configuration and queue, one port on loopback.

It takes mail for every domain into one Maildir. As an MX it takes it from anybody; as a smart
host from those who log in under TLS (Cyrus SASL over a private password file).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from mailtwist.tls import selfsigned
from tests.support.ports import free_port

HOSTNAME = "mx.far.example"
USERNAME = "relay@far.example"
START_S = 30.0
PROGRAMS = ("postfix", "postconf")

# Whatever is not said here is Debian's; nothing of /etc/postfix/main.cf is read.
MAIN = """\
compatibility_level = 3.6
queue_directory = {folder}/spool
data_directory = {folder}/data
mail_owner = postfix
setgid_group = postdrop
maillog_file = {folder}/log/maillog
maillog_file_prefixes = {folder}
myhostname = {name}
mydestination =
mynetworks = {networks}
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
local_recipient_maps =
alias_maps =
virtual_mailbox_domains = static:all
virtual_mailbox_maps = static:inbox/
virtual_mailbox_base = {folder}/mail
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
virtual_minimum_uid = 1
mailbox_size_limit = 0
virtual_mailbox_limit = 0
message_size_limit = {message_size}
in_flow_delay = 0
smtpd_relay_restrictions = {permit}, reject
smtpd_recipient_restrictions =
smtpd_client_connection_count_limit = 0
smtpd_tls_chain_files = {folder}/tls.pem
smtpd_tls_security_level = {tls}
smtpd_tls_received_header = yes
smtpd_tls_loglevel = 1
smtpd_tls_session_cache_database =
tls_random_source = dev:/dev/urandom
smtpd_sasl_auth_enable = {auth}
smtpd_tls_auth_only = yes
smtpd_sasl_type = cyrus
smtpd_sasl_path = smtpd
smtpd_sasl_security_options = noanonymous
debug_peer_list =
"""

MASTER = """\
127.0.0.1:{port} inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
local unix - n n - - local
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""

SASL = """\
pwcheck_method: auxprop
auxprop_plugin: sasldb
mech_list: {mechanisms}
sasldb_path: {folder}/etc/sasl/sasldb2
"""


def absence(*, with_auth: bool = False) -> str:
    """Why none can be started; empty: it can."""
    for program in (*PROGRAMS, *(("saslpasswd2",) if with_auth else ())):
        if _found(program) is None:
            return f"{program} is not installed"
    if os.getuid() != 0:
        return "Postfix starts as root only"
    return ""


class Postfix:
    """Runs until :meth:`stop`; a context manager.

    ``password``: a smart host, where :data:`USERNAME` may relay with it and nobody else.
    ``tls``: its ``smtpd_tls_security_level`` (none, may, encrypt). ``mechanisms``: of SASL.
    ``settings``: further ones of main.cf.
    """

    def __init__(
        self,
        *,
        password: str = "",
        tls: str = "may",
        mechanisms: str = "PLAIN LOGIN",
        message_size: int = 50 << 20,
        hostname: str = HOSTNAME,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        # Its own users must be able to enter the folder, unlike pytest's.
        self.folder = Path(tempfile.mkdtemp(prefix="mailtwist-postfix-"))
        self.folder.chmod(0o755)
        self.hostname = hostname
        self.port = free_port()
        self.ca_file = self.folder / "ca.pem"
        self._config = self.folder / "etc"
        self._is_running = False
        try:
            self._write(password, tls, mechanisms, message_size, settings or {})
            self.start()
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> Postfix:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def start(self) -> None:
        self._call("postfix", "-c", str(self._config), "start")
        self._is_running = True
        deadline = time.monotonic() + START_S
        while not self._greets():
            if time.monotonic() > deadline:
                raise RuntimeError(self.log[-2000:])
            time.sleep(0.05)

    def halt(self) -> None:
        """As :meth:`stop`, but :meth:`start` starts it again with what it holds."""
        if self._is_running:
            self._is_running = False
            pid = int((self.folder / "spool/pid/master.pid").read_text())
            # What "postfix stop" does, which then sleeps for a second.
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
            _end(pid)

    def stop(self) -> None:
        self.halt()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def log(self) -> str:
        path = self.folder / "log/maillog"
        return path.read_text(errors="replace") if path.exists() else ""

    def mails(self) -> list[bytes]:
        """What arrived, as stored (LF line ends, ``Delivered-To`` names the recipient)."""
        found = (self.folder / "mail/inbox/new").glob("*")
        return [path.read_bytes() for path in sorted(found, key=lambda each: each.stat().st_mtime)]

    def wait_for(self, count: int, seconds: float = 30.0) -> list[bytes]:
        """The mails, as soon as there are so many."""
        deadline = time.monotonic() + seconds
        while len(found := self.mails()) < count:
            assert time.monotonic() < deadline, (len(found), self.log[-3000:])
            time.sleep(0.05)
        return found

    # -- how it is set up ---------------------------------------------------------------------

    def _write(
        self,
        password: str,
        tls: str,
        mechanisms: str,
        message_size: int,
        settings: Mapping[str, str],
    ) -> None:
        account = _account()
        for name in ("etc", "etc/sasl", "spool", "data", "log", "mail"):
            (self.folder / name).mkdir()
        shutil.chown(self.folder / "data", "postfix")
        shutil.chown(self.folder / "mail", "postfix")
        certificate, key = selfsigned.make([self.hostname], datetime.now(UTC))
        self.ca_file.write_bytes(certificate)
        pem = self.folder / "tls.pem"
        pem.write_bytes(key + certificate)
        pem.chmod(0o600)
        text = MAIN.format(
            folder=self.folder,
            name=self.hostname,
            uid=account[0],
            gid=account[1],
            message_size=message_size,
            networks="" if password else "127.0.0.0/8",
            permit="permit_sasl_authenticated" if password else "permit_mynetworks",
            tls=tls,
            auth="yes" if password else "no",
        )
        text += "".join(f"{name} = {value}\n" for name, value in settings.items())
        (self._config / "main.cf").write_text(text)
        (self._config / "master.cf").write_text(MASTER.format(port=self.port))
        if password:
            self._write_sasl(password, mechanisms)

    def _write_sasl(self, password: str, mechanisms: str) -> None:
        sasl = self._config / "sasl"  # Debian's looks nowhere else
        text = SASL.format(folder=self.folder, mechanisms=mechanisms)
        (sasl / "smtpd.conf").write_text(text)
        name, _, realm = USERNAME.partition("@")
        command = ("-p", "-c", "-f", str(sasl / "sasldb2"), "-u", realm, name)
        self._call("saslpasswd2", *command, input=password.encode())
        shutil.chown(sasl / "sasldb2", "postfix")

    def _greets(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as probe:
                return probe.recv(100).startswith(b"220")
        except OSError:
            return False

    def _call(self, program: str, *arguments: str, input: bytes = b"") -> None:
        found = _found(program)
        assert found is not None, program
        # Not a pipe: the daemons that it leaves behind would hold it open.
        with (self.folder / "log/command").open("a+b") as log:
            done = subprocess.run(
                [found, *arguments],
                cwd=self.folder,
                input=input,
                stdout=log,
                stderr=log,
                timeout=60,
                check=False,
            )
        if done.returncode:
            text = (self.folder / "log/command").read_text(errors="replace")
            raise RuntimeError(f"{program}: {text[-2000:]} {self.log[-2000:]}")


def _found(program: str) -> str | None:
    # Debian keeps them where only root's PATH looks.
    return shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")


def _account() -> tuple[int, int]:
    import pwd

    entry = pwd.getpwnam("postfix")
    return entry.pw_uid, entry.pw_gid


def _end(pid: int) -> None:
    """Wait until the master is gone; it has no parent here that would."""
    deadline = time.monotonic() + 15
    while _runs(pid):
        if time.monotonic() > deadline:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            return
        time.sleep(0.05)


def _runs(pid: int) -> bool:
    """Whether there is more left of it than the entry that its new parent has not yet taken."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"
