"""``mailtwist upgrade-in-place``: one process in the place of another, and no client notices."""

from __future__ import annotations

import imaplib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e import mails
from tests.e2e.relaying import command, going_to
from tests.e2e.replaced import Load, Replaced, has_ended
from tests.e2e.server import LISTENERS, ROOT, content_of
from tests.support.sink import Sink

pytestmark = pytest.mark.real

BIN = Path(sys.executable).parent


@pytest.fixture
def make_replaced(tmp_path: Path) -> Iterator[Callable[..., Replaced]]:
    made: list[Replaced] = []

    def make(**settings: Any) -> Replaced:
        made.append(Replaced(tmp_path / f"server{len(made)}", **settings))
        return made[-1]

    yield make
    for each in made:
        each.stop()
    for each in made:
        each.check()
        assert [event for event in each.events if event["level"] == "critical"] == []


def failed_events(server: Replaced) -> list[dict[str, Any]]:
    return [each for each in server.events if each["level"] in ("error", "critical")]


def test_no_client_is_refused_while_processes_replace_each_other(make_replaced):
    server = make_replaced()
    alice = server.account()
    server.start()
    first = server.server_pid
    pids = [first]
    with Load(server, alice).running(3) as load:
        for _ in range(3):
            before = load.sessions.copy()
            _, new = server.replaced()
            pids.append(new)
            # Each kind of client has been served by this process, too.
            server.until(lambda before=before: load.is_past(before, by=3))
    assert load.faults == []
    assert len(set(pids)) == 4
    assert len(server.mails(alice)) == load.sessions["smtp"]
    assert failed_events(server) == []
    server.until_ended(*pids[:-1])
    assert server.wait() == 0


def until_said(client: imaplib.IMAP4, line: bytes) -> bool:
    while (said := client.readline().strip()) != line:
        assert said.startswith(b"* "), said
    return True


def test_on_postgresql_both_processes_share_the_database(make_replaced, postgresql_server):
    url = postgresql_server.fresh()
    with Sink() as sink:
        server = make_replaced(database_url=url, outbound=going_to(sink))
        alice = server.account()
        server.start()
        with Load(server, alice).running(1) as load:
            old, _ = server.replaced()
            server.send("bob@far.example", mails.simple("to leave"))
            server.until(lambda: len(sink.mails) == 1 and load.is_past(Counter(), by=3))
        assert load.faults == []
        assert len(server.mails(alice)) == load.sessions["smtp"]
        server.until_ended(old)
        server.stop()


def test_sessions_go_on_and_see_what_the_new_process_takes(make_replaced):
    server = make_replaced()
    alice = server.account()
    server.start()
    sent = mails.simple("half of it before", octets=100_000)
    sending, idle = server.raw("smtp"), server.imap(alice)
    idle.select("INBOX")
    sending.reply()
    sending.say(b"EHLO client.example")
    sending.say(b"MAIL FROM:<x@elsewhere.example>")
    sending.say(b"RCPT TO:<%s>" % alice.encode())
    assert sending.say(b"DATA").startswith(b"354")
    sending.send(sent[:50_000])
    idle.send(b"a1 IDLE\r\n")
    assert idle.readline().startswith(b"+ ")

    old, _ = server.replaced()
    server.send(alice, mails.simple("to the new process"))
    assert until_said(idle, b"* 1 EXISTS")
    sending.send(sent[50_000:] + b".\r\n")
    assert sending.reply().startswith(b"250 2.0.0 Message accepted")
    assert until_said(idle, b"* 2 EXISTS")
    assert sending.say(b"NOOP").startswith(b"250")
    assert not has_ended(old)
    assert sending.say(b"QUIT").startswith(b"221")
    idle.send(b"DONE\r\n")
    assert until_said(idle, b"a1 OK IDLE completed")
    idle.logout()
    sending.close()
    server.until_ended(old)
    assert sent in [content_of(mail) for mail in server.mails(alice).values()]


def test_after_the_drain_time_the_old_process_sends_its_sessions_away(make_replaced):
    server = make_replaced(drain_time="1s").start()
    silent = server.raw("smtp")
    silent.reply()
    old, _ = server.replaced()
    assert silent.line().startswith(b"421 ")
    server.until_ended(old)
    silent.close()


def test_connections_kept_alive_end_with_their_next_answer(make_replaced):
    server = make_replaced().start()
    request = b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n"
    with server.raw("http") as kept:
        kept.send(request)
        while kept.line().strip():
            pass
        assert kept.file.read(4) == b"pong"
        old, _ = server.replaced()
        kept.send(request)
        answer = kept.file.read()
        assert answer.startswith(b"HTTP/1.1 200")
        assert b"connection: close" in answer.lower()
    server.until_ended(old)


def test_sigterm_to_the_old_process_ends_it_and_nothing_else(make_replaced):
    server = make_replaced().start()
    silent = server.raw("smtp")
    silent.reply()
    old, new = server.replaced()
    os.kill(old, signal.SIGTERM)
    assert silent.line().startswith(b"421 ")
    server.until_ended(old)
    silent.close()
    assert server.pid == new
    assert (server.data_dir / "listeners.json").exists()
    os.kill(new, signal.SIGHUP)  # no end of a server without a terminal
    with server.smtp() as client:
        assert client.noop()[0] == 250
    server.stop()
    assert not (server.data_dir / "listeners.json").exists()


def test_the_queue_goes_on_without_delay(make_replaced):
    with Sink() as sink:
        server = make_replaced(outbound=going_to(sink)).start()
        silent = server.raw("smtp")
        silent.reply()
        server.replaced()
        # The old process is there still, and no longer the one that runs the queue.
        server.send("bob@far.example", mails.simple("to leave"))
        server.until(lambda: len(sink.mails) == 1, 5)
        silent.close()


# -- the command --------------------------------------------------------------------------------


def test_the_command_says_which_process_serves(make_replaced):
    server = make_replaced().start()
    old = server.server_pid
    told = json.loads(command(server, "upgrade-in-place", "--json"))
    assert (told["upgraded"], told["old"], told["reason"]) == (True, old, "")
    assert server.pid == told["new"] != old
    said = command(server, "upgrade-in-place")
    assert f"process {server.pid} serves now" in said


def test_without_a_server_the_command_says_so(make_replaced):
    server = make_replaced().start()
    server.stop()
    said = command(server, "upgrade-in-place", status=1)
    assert "no server runs on" in said
    assert len(said.splitlines()) == 1


def refused(server: Replaced) -> str:
    """What the command says that finds the server by its folder alone."""
    words = [str(BIN / "mailtwist"), "--data-dir", str(server.data_dir), "upgrade-in-place"]
    clean = {k: v for k, v in os.environ.items() if not k.startswith("MAILTWIST_")}
    done = subprocess.run(
        words, check=False, capture_output=True, text=True, timeout=120, cwd="/", env=clean
    )
    assert done.returncode == 1, done
    assert len(done.stderr.splitlines()) == 1
    return done.stderr


@pytest.mark.parametrize("what", ["configuration", "address", "database"])
def test_when_the_new_process_cannot_start_the_old_one_goes_on(make_replaced, what):
    server = make_replaced()
    alice = server.account()
    server.start()
    old = server.server_pid
    rows = (server.data_dir / "listeners.json").read_text()
    config = server.config.read_text()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        if what == "configuration":
            reason = "max_message_size"
            server.config.write_text(f"{config}\nmax_message_size: lots\n")
        elif what == "address":
            reason = place
            given = config.replace(
                "listeners:", f"listeners:\n- {{protocol: imap, address: '{place}'}}", 1
            )
            server.config.write_text(given)
        else:
            url = "database_url: postgresql+psycopg://127.0.0.1:1/x"
            server.config.write_text(f"{config}\n{url}\n")
            reason = "Store unavailable"
        with Load(server, alice).running(1) as load:
            said = refused(server)
    assert reason in said
    assert f"process {old} goes on" in said
    assert load.faults == []
    assert server.pid == old
    assert json.loads((server.data_dir / "listeners.json").read_text()) == json.loads(rows)
    assert any("this process goes on" in str(each["event"]) for each in failed_events(server))
    # What was wrong is mended: now it works.
    server.config.write_text(config)
    server.replaced()


def test_a_new_process_that_is_ended_leaves_the_old_one_as_it_was(make_replaced):
    server = make_replaced().start()
    old = server.server_pid
    ended: list[int] = []

    def end_the_new_one() -> None:
        def its_pid() -> set[int]:
            threads = Path(f"/proc/{old}/task").glob("*/children")
            found = [int(pid) for each in threads for pid in each.read_text().split()]
            return {pid for pid in found if b"twistd" in _cmdline(pid)}

        server.until(lambda: bool(its_pid()))
        for pid in its_pid():
            os.kill(pid, signal.SIGKILL)
            ended.append(pid)

    ending = threading.Thread(target=end_the_new_one)
    ending.start()
    said = command(server, "upgrade-in-place", status=1)
    ending.join()
    assert len(ended) == 1
    assert "ended before it was ready" in said
    assert server.pid == old
    with server.smtp() as client:
        assert client.noop()[0] == 250


def _cmdline(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


# -- other ways to be started -------------------------------------------------------------------


class Served(Replaced):
    """By a command of one's own instead of ``twistd -n``."""

    words: tuple[str, ...] = ()
    descriptors: tuple[int, ...] = ()

    def launch(self) -> None:
        self.config.write_text(yaml.safe_dump(self.settings))
        clean = {k: v for k, v in os.environ.items() if not k.startswith("MAILTWIST_")}
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                self.words,
                cwd=self.folder,
                env={**clean, "PYTHONPATH": str(ROOT), **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=self.descriptors,
            )


@pytest.fixture
def make_served(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    made: list[Served] = []

    def make(*words: str, **settings: Any) -> Served:
        server = Served(tmp_path / f"served{len(made)}", **settings)
        server.words = words
        made.append(server)
        return server

    yield make
    for each in made:
        each.stop()
    for each in made:
        each.check()


def test_the_foreground_command_can_be_replaced(make_served):
    # A name relative to the folder, as people write it.
    server = make_served(str(BIN / "mailtwist"), "-c", "mailtwist.yaml", "serve", "--json")
    server.start()
    old, _ = server.replaced()
    server.until_ended(old)
    assert server.wait() == 0
    with server.smtp() as client:
        assert client.noop()[0] == 250
    bound = [each for each in server.log.splitlines() if each.startswith('{"listeners"')]
    assert len(bound) == 2
    assert bound[0] == bound[1]


def test_a_daemon_is_replaced_and_its_pid_file_names_who_serves(make_served):
    server = make_served()
    server.settings["log_file"] = str(server.folder / "own.log")
    server.words = (
        str(BIN / "twistd"), "--pidfile=twistd.pid", "--rundir=/", "mailtwist",
        "-c", str(server.config),
    )  # fmt: skip
    server.launch()
    server.until(lambda: server.pid is not None, 60)
    server.wait_until_up()
    assert server.wait() == 0  # the process that was started has made the daemon and ended
    path = server.folder / "twistd.pid"
    first = int(path.read_text())
    assert server.pid == first
    for _ in range(2):
        old, new = server.replaced()
        server.until_ended(old)
        server.until(lambda new=new: path.exists() and path.read_text().strip() == str(new))
        assert (server.data_dir / "listeners.json").exists()
    assert new != first
    server.stop()
    server.until(lambda: not path.exists())


def test_the_foreground_command_tells_why_it_cannot_start(make_served):
    server = make_served(str(BIN / "mailtwist"), "-c", "mailtwist.yaml", "serve")
    server.start()
    config = server.config.read_text()
    server.config.write_text(f"{config}\nmax_message_size: lots\n")
    assert "max_message_size" in refused(server)


def test_a_new_version_that_cannot_be_loaded_is_told_by_its_last_words(make_replaced, tmp_path):
    broken = tmp_path / "broken"
    server = make_replaced()
    server.environment["PYTHONPATH"] = f"{broken}:{ROOT}"
    server.start()
    (broken / "mailtwist").mkdir(parents=True)
    (broken / "mailtwist" / "__init__.py").write_text("raise ImportError('half installed')")
    assert "half installed" in refused(server)
    shutil.rmtree(broken)
    server.replaced()


def test_systemd_hears_who_the_main_process_is(make_replaced, tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        name = f"mailtwist-{os.getpid()}-{tmp_path.name}"
        systemd.bind(f"\0{name}")
        systemd.settimeout(60)
        server = make_replaced()
        server.environment["NOTIFY_SOCKET"] = f"@{name}"
        server.start()
        assert systemd.recv(1000) == b"READY=1"
        _, new = server.replaced()
        assert systemd.recv(1000).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
        assert systemd.recv(1000) == b"MAINPID=%d\nREADY=1" % new
        server.stop()
        # The old process has said nothing more.
        assert systemd.recv(1000) == b"STOPPING=1"
        systemd.setblocking(False)
        with pytest.raises(BlockingIOError):
            systemd.recv(1000)


def test_a_failed_upgrade_ends_the_reload_for_systemd(make_replaced, tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        name = f"mailtwist-{os.getpid()}-{tmp_path.name}"
        systemd.bind(f"\0{name}")
        systemd.settimeout(60)
        server = make_replaced()
        server.environment["NOTIFY_SOCKET"] = f"@{name}"
        server.start()
        server.config.write_text("nonsense: 1\n")
        os.kill(server.server_pid, signal.SIGUSR2)
        assert systemd.recv(1000) == b"READY=1"
        assert systemd.recv(1000).startswith(b"RELOADING=1")
        assert systemd.recv(1000) == b"READY=1"


def test_sockets_of_systemd_are_handed_on(make_served):
    with socket.create_server(("127.0.0.1", 0)) as passed:
        place = f"127.0.0.1:{passed.getsockname()[1]}"
        listeners = [*LISTENERS[1:], {"protocol": "smtp", "address": place}]
        # As systemd does it: descriptor 3, and the number of the very process that is started.
        start = (
            "import os, sys; os.dup2(int(sys.argv[1]), 3);"
            " os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1');"
            " os.execv(sys.argv[2], sys.argv[2:])"
        )
        server = make_served(
            sys.executable, "-c", start, str(passed.fileno()), str(BIN / "twistd"), "-n",
            "--pidfile=", "mailtwist", "-c", "mailtwist.yaml", listeners=listeners,
        )  # fmt: skip
        server.descriptors = (passed.fileno(),)
        server.start()
        assert server.ports["smtp"] == passed.getsockname()[1]
        inode = os.fstat(passed.fileno()).st_ino
        for _ in range(2):
            old, new = server.replaced()
            server.until_ended(old)
            descriptors = Path(f"/proc/{new}/fd")
            assert f"socket:[{inode}]" in {os.readlink(each) for each in descriptors.iterdir()}
        with server.smtp() as client:
            assert client.noop()[0] == 250


NOBODY = 65534


def _free_privileged_port() -> int:
    for port in range(1023, 600, -1):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    pytest.skip("no free port below 1024")


def _python_for_nobody() -> tuple[str, str]:
    """An interpreter that another user may read, and its PYTHONPATH."""
    packages = str(Path(yaml.__file__).parents[1])
    system = shutil.which("python3", path="/usr/local/bin:/usr/bin") or ""
    for python, more in ((sys.executable, ""), (system, f":{packages}")):
        # The prefix tells whether it is this interpreter, and not what is found instead.
        code = "import sys, configparser; print(sys.base_prefix, sys.version_info[:2])"
        as_nobody = ("setpriv", f"--reuid={NOBODY}", "--clear-groups", python, "-c", code)
        said = [
            subprocess.run(words, check=False, capture_output=True, cwd="/").stdout
            for words in (as_nobody, as_nobody[3:])
        ]
        if (
            said[0]
            and said[0] == said[1]
            and said[0].endswith(f"{sys.version_info[:2]}\n".encode())
        ):
            return python, f"{ROOT}{more}"
    pytest.skip("another user may read no interpreter of this version")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give its rights up")
def test_a_process_that_gave_root_up_hands_its_privileged_ports_on():
    # Not pytest's folder: another user may not enter that one.
    folder = Path(tempfile.mkdtemp(prefix="mailtwist-uid-"))
    try:
        python, more = _python_for_nobody()
        port = _free_privileged_port()
        listeners = [*LISTENERS[1:], {"protocol": "smtp", "address": f"127.0.0.1:{port}"}]
        server = Served(folder / "server", listeners=listeners)
        server.words = (
            python, str(BIN / "twistd"), "-n", "--pidfile=", f"--uid={NOBODY}",
            f"--gid={NOBODY}", "mailtwist", "-c", "mailtwist.yaml",
        )  # fmt: skip
        server.environment["PYTHONPATH"] = more
        for path in (folder, folder / "server"):
            os.chown(path, NOBODY, NOBODY)
        try:
            server.start()
            for _ in range(2):
                old, new = server.replaced()
                server.until_ended(old)
                status = Path(f"/proc/{new}/status").read_text()
                assert not re.search(r"^Uid:(\s+\d+)*\s+0\b", status, re.MULTILINE)
                assert server.ports["smtp"] == port
                with server.smtp() as client:
                    assert client.noop()[0] == 250
        finally:
            server.stop()
        server.check()
    finally:
        shutil.rmtree(folder)
