"""One connection of a sink: it reads commands and answers what the script says."""

from __future__ import annotations

import base64
import re
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

EXTENSIONS = (
    "PIPELINING",
    "SIZE 52428800",
    "8BITMIME",
    "ENHANCEDSTATUSCODES",
    "DSN",
    "SMTPUTF8",
)

_PATH = re.compile(r"(?:FROM|TO):<(?P<path>(?:\"(?:[^\"\\]|\\.)*\"|[^>])*)>(?P<rest>.*)", re.I)

DEFAULTS = {
    "GREETING": "220 {host} ESMTP",
    "HELO": "250 {host}",
    "STARTTLS": "220 2.0.0 go ahead",
    "AUTH": "235 2.7.0 welcome",
    "MAIL": "250 2.1.0 sender ok",
    "RCPT": "250 2.1.5 recipient ok",
    "DATA": "354 go ahead",
    "BDAT": "250 2.0.0 chunk ok",
    "END": "250 2.0.0 taken",
    "RSET": "250 2.0.0 forgotten",
    "NOOP": "250 2.0.0 ok",
    "QUIT": "221 2.0.0 bye",
}


@dataclass
class Visit:
    """One connection."""

    peer: tuple[Any, ...] = ()
    greeted_as: str = ""  # the argument of the last EHLO, HELO or LHLO
    verb: str = ""  # which of them
    tls: bool = False
    sni: str | None = None
    login: tuple[str, str] | None = None
    commands: list[str] = field(default_factory=list)
    mails: list[Mail] = field(default_factory=list)
    is_open: bool = True
    is_hanging: bool = False  # the sink has nothing more to say


@dataclass
class Mail:
    """A transaction that came to the end of its content, whatever was answered then."""

    visit: Visit
    reverse_path: str
    parameters: dict[str, str]  # of MAIL, names in upper case; "" for one without value
    recipients: list[str] = field(default_factory=list)  # accepted ones
    recipient_parameters: list[dict[str, str]] = field(default_factory=list)
    data: bytes = b""  # dot-stuffing undone, the last CRLF included
    by_bdat: bool = False
    replies: list[str] = field(default_factory=list)  # to the end; LMTP: one a recipient
    at: float = 0.0  # time.monotonic() of the end

    @property
    def is_taken(self) -> bool:
        return any(reply.startswith("2") for reply in self.replies)


class Gone(Exception):
    """The connection has ended."""


class Script(Protocol):
    """What a session needs of its sink."""

    name: str
    extensions: list[str]
    tls: ssl.SSLContext | None
    is_implicit: bool
    tls_garbage: bool
    behind_starttls: bytes
    logins: Mapping[str, str] | None
    mechanisms: str
    ignores_initial: bool
    is_lmtp: bool
    is_byte_wise: bool
    is_lenient: bool
    delay: Callable[[str], float] | None
    mails: list[Mail]
    faults: list[str]
    stopping: threading.Event

    def reply_for(self, verb: str, subject: str = "") -> str: ...
    def note(self, change: Callable[[], None]) -> None: ...
    def swap(self, old: socket.socket, new: socket.socket) -> None: ...


class Session:
    def __init__(self, sink: Script, connection: socket.socket, visit: Visit) -> None:
        self.sink = sink
        self.socket = connection
        self.visit = visit
        self.buffer = b""
        self.mail: Mail | None = None
        self.announced: set[str] = set()
        self.is_over = False

    def run(self) -> None:
        if self.sink.is_implicit:
            self._start_tls()
        self._answer("GREETING")
        while not self.is_over:
            line = self._line()
            self._note_command(line)
            verb, _, argument = line.partition(" ")
            verb = verb.upper()
            if verb not in {"BDAT", "DATA"} and self.buffer and "PIPELINING" not in self.announced:
                self._fault(f"pipelined behind {line}")
            method = getattr(self, f"_do_{verb.lower()}", None)
            if method is None:
                self._say("500 5.5.1 unknown command")
            else:
                method(argument)

    def _note_command(self, line: str) -> None:
        self.sink.note(lambda: self.visit.commands.append(line))

    # -- octets --------------------------------------------------------------------------------

    def _receive(self) -> None:
        data = self.socket.recv(1 << 18)
        if not data:
            raise Gone
        self.buffer += data

    def _line(self) -> str:
        end = b"\n" if self.sink.is_lenient else b"\r\n"
        while end not in self.buffer:
            if len(self.buffer) > 65536:
                self._fault("a command line without end")
                raise Gone
            self._receive()
        line, _, self.buffer = self.buffer.partition(end)
        if b"\n" in line or b"\r" in line.removesuffix(b"\r" if self.sink.is_lenient else b""):
            self._fault(f"a bare CR or LF in a command: {line!r}")
        return line.decode("utf-8", "replace").removesuffix("\r")

    def _send(self, data: bytes) -> None:
        if not self.sink.is_byte_wise:
            self.socket.sendall(data)
            return
        for octet in data:
            self.socket.sendall(bytes([octet]))

    def _fault(self, text: str) -> None:
        self.sink.note(lambda: self.sink.faults.append(text))

    def _start_tls(self) -> None:
        if self.sink.tls_garbage:
            self._receive()
            self.socket.sendall(b"this is no TLS\r\n" * 10)
            raise Gone
        assert self.sink.tls is not None
        plain = self.socket
        self.sink.tls.sni_callback = self._asked_for
        self.socket = secure = self.sink.tls.wrap_socket(
            plain, server_side=True, do_handshake_on_connect=False
        )
        self.sink.swap(plain, secure)
        secure.do_handshake()
        self.visit.tls = True
        self.buffer = b""

    def _asked_for(self, _socket: Any, name: str | None, _context: Any) -> None:
        self.visit.sni = name

    # -- replies -------------------------------------------------------------------------------

    def _answer(self, verb: str, default: str = "", subject: str = "") -> str:
        """Say what the script says for this verb, else the default."""
        return self._utter(self._choose(verb, default, subject))

    def _choose(self, verb: str, default: str = "", subject: str = "") -> str:
        if self.sink.delay is not None:
            time.sleep(self.sink.delay(verb))
        reply = self.sink.reply_for(verb, subject) or default or DEFAULTS[verb]
        return reply.replace("{host}", self.sink.name)

    def _utter(self, reply: str) -> str:
        if reply.startswith("!"):
            self._misbehave(reply)
        else:
            self._say(reply)
        return reply

    def _say(self, reply: str) -> None:
        self._send(reply.replace("\n", "\r\n").encode() + b"\r\n")

    def _misbehave(self, reply: str) -> None:
        fault, _, text = reply[1:].partition(" ")
        if fault == "early":
            self._say("354 go ahead")
            self._receive()
            self._say(text)
        if fault == "mute":
            self._say(text)
        if fault == "deaf":
            self._say(text)
            self._hang()
            self.sink.stopping.wait()
            raise Gone
        if fault in {"hang", "early", "mute"}:
            self._hang()
            while True:
                self._receive()
                self.buffer = b""
        if fault == "reset":
            linger = struct.pack("ii", 1, 0)
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.socket.close()
        elif fault == "garbage":
            self._send(b"\x00\xff\xfe hello there\x80\r\nwhat?\r\n")
            return
        elif fault == "long":
            self._send(b"250 " + b"x" * (1 << 20))
            return
        elif fault == "lines":
            self._send(b"250-more\r\n" * 100_000)
            return
        elif fault == "raw":
            self._send(text.encode("latin-1").decode("unicode_escape").encode("latin-1"))
            return
        elif fault == "then":
            self._say(text)
        else:
            assert fault == "close", reply
        raise Gone

    def _hang(self) -> None:
        self.sink.note(lambda: setattr(self.visit, "is_hanging", True))

    # -- verbs ---------------------------------------------------------------------------------

    def _hello(self, verb: str, name: str) -> None:
        def note() -> None:
            self.visit.verb, self.visit.greeted_as = verb, name

        self.mail = None
        self.sink.note(note)
        if verb == "HELO":
            self._answer("HELO")
            return
        sink = self.sink
        lines = [sink.name, *sink.extensions]
        if (sink.tls is not None or sink.tls_garbage) and not self.visit.tls:
            lines.append("STARTTLS")
        if sink.logins is not None:
            lines.append(f"AUTH {sink.mechanisms}")
        default = "\n".join(f"250-{line}" for line in lines[:-1]) + f"\n250 {lines[-1]}"
        said = self._answer(verb, default.strip())
        self.announced = {
            line[4:].split(" ")[0].upper() for line in said.split("\n") if said.startswith("250")
        }

    def _do_ehlo(self, name: str) -> None:
        if self.sink.is_lmtp:
            self._say("500 5.5.1 this is LMTP")
        else:
            self._hello("EHLO", name)

    def _do_helo(self, name: str) -> None:
        self._hello("HELO", name)

    def _do_lhlo(self, name: str) -> None:
        self._hello("LHLO", name)

    def _do_starttls(self, _argument: str) -> None:
        if not self._answer("STARTTLS").startswith("2"):
            return
        if self.sink.behind_starttls:
            self.socket.sendall(self.sink.behind_starttls)
        self._start_tls()

    def _do_auth(self, argument: str) -> None:
        if self.sink.logins is None:
            self._say("503 5.5.1 no AUTH here")
            return
        mechanism, _, initial = argument.partition(" ")
        if mechanism.upper() == "PLAIN":
            token = (not self.sink.ignores_initial and initial) or self._challenge("")
            _, username, password = base64.b64decode(token).decode().split("\0")
        else:
            username = base64.b64decode(self._challenge("VXNlcm5hbWU6")).decode()
            password = base64.b64decode(self._challenge("UGFzc3dvcmQ6")).decode()
        self.visit.login = (username, password)
        if self.sink.logins.get(username) == password:
            self._answer("AUTH")
        else:
            self._say("535 5.7.8 Authentication credentials invalid")

    def _challenge(self, text: str) -> str:
        self._say(f"334 {text}")
        return self._line()

    def _do_mail(self, argument: str) -> None:
        found = _PATH.fullmatch(argument)
        if found is None or self.mail is not None:
            self._fault(f"MAIL {argument}")
            self._say("503 5.5.1 bad MAIL")
            return
        if self._answer("MAIL", subject=found["path"]).startswith("2"):
            self.mail = Mail(self.visit, found["path"], self._parameters(found["rest"]))

    def _do_rcpt(self, argument: str) -> None:
        found = _PATH.fullmatch(argument)
        if found is None:
            self._fault(f"RCPT {argument}")
            self._say("501 5.5.4 bad RCPT")
        elif self.mail is None:
            self._say("503 5.5.1 MAIL first")
        elif self._answer("RCPT", subject=found["path"]).startswith("2"):
            self.mail.recipients.append(found["path"])
            self.mail.recipient_parameters.append(self._parameters(found["rest"]))

    def _parameters(self, text: str) -> dict[str, str]:
        """Of MAIL or RCPT; one that was not announced is a fault."""
        needs = {
            "SIZE": "SIZE",
            "BODY": "8BITMIME",
            "SMTPUTF8": "SMTPUTF8",
            "RET": "DSN",
            "ENVID": "DSN",
            "NOTIFY": "DSN",
            "ORCPT": "DSN",
            "REQUIRETLS": "REQUIRETLS",
        }
        found = {}
        for word in text.split():
            name, _, value = word.partition("=")
            found[name.upper()] = value
            if needs.get(name.upper()) not in self.announced:
                self._fault(f"{word} was not announced")
        return found

    def _do_data(self, _argument: str) -> None:
        if self.buffer:
            self._fault("content sent before 354")
        if self.mail is None or not self.mail.recipients:
            if not self._answer("DATA", "554 5.5.1 no valid recipients").startswith("354"):
                return
        elif not self._answer("DATA").startswith("354"):
            return
        data = self._content()
        if self.mail is None or not self.mail.recipients:
            self.mail = None
            self._say("554 5.5.1 no valid recipients")
            return
        self.mail.data = data
        self._end()

    def _content(self) -> bytes:
        """Up to the line with one dot, as RFC 5321 §4.5.2 undoes the stuffing."""
        content: list[bytes] = []
        lenient = self.sink.is_lenient
        end = b"\n" if lenient else b"\r\n"
        while True:
            lines = self.buffer.split(end)
            self.buffer = lines.pop()
            for number, line in enumerate(lines):
                if (line.removesuffix(b"\r") if lenient else line) == b".":
                    self.buffer = end.join([*lines[number + 1 :], self.buffer])
                    return b"".join(content)
                content.append((line[1:] if line.startswith(b".") else line) + end)
            self._receive()

    def _do_bdat(self, argument: str) -> None:
        size, _, last = argument.partition(" ")
        while len(self.buffer) < int(size):
            self._receive()
        chunk, self.buffer = self.buffer[: int(size)], self.buffer[int(size) :]
        if "CHUNKING" not in self.announced:
            self._fault("BDAT was not announced")
        if self.mail is None or not self.mail.recipients:
            self._say("503 5.5.1 no valid recipients")
            return
        self.mail.by_bdat = True
        self.mail.data += chunk
        if last.upper() == "LAST":
            self._end()
        elif not self._answer("BDAT").startswith("2"):
            self.mail = None

    def _end(self) -> None:
        mail, self.mail = self.mail, None
        assert mail is not None
        mail.at = time.monotonic()

        def note() -> None:
            self.visit.mails.append(mail)
            self.sink.mails.append(mail)

        self.sink.note(note)
        for address in mail.recipients if self.sink.is_lmtp else [""]:
            reply = self._choose("END", subject=address)
            # Before the client can hear of it.
            self._note_reply(mail, reply)
            self._utter(reply)

    def _note_reply(self, mail: Mail, reply: str) -> None:
        self.sink.note(lambda: mail.replies.append(reply))

    def _do_rset(self, _argument: str) -> None:
        self.mail = None
        self._answer("RSET")

    def _do_noop(self, _argument: str) -> None:
        self._answer("NOOP")

    def _do_quit(self, _argument: str) -> None:
        self._answer("QUIT")
        self.is_over = True
