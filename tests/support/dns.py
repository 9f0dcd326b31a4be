"""A DNS server on loopback, UDP and TCP, that says what a test tells it.

::

    with DnsServer({"far.test": {"MX": ["10 mx.far.test."]},
                    "mx.far.test": {"A": ["127.0.0.1"]}}) as server:
        ... outbound.resolver = server.address ...

``zone`` may be changed while it runs. A name that is not in it does not exist.
Names in ``servfail`` get SERVFAIL, those in ``silent`` no reply, those in ``garbage``
octets that are no reply, those in ``partial`` a CNAME without what it leads to.
``questions`` lists what was asked: ``("far.test", "MX")``, retries too.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from collections.abc import Mapping, Sequence

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

Records = Mapping[str, Sequence[str]]
MAX_CNAMES = 20


class DnsServer:
    def __init__(self, zone: Mapping[str, Records] | None = None, *, ttl: int = 300) -> None:
        self.zone: dict[str, Records] = dict(zone or {})
        self.ttl = ttl
        self.negative_ttl = 60
        self.servfail: set[str] = set()
        self.silent: set[str] = set()
        self.garbage: set[str] = set()
        self.partial: set[str] = set()
        self.is_secure = False
        self.questions: list[tuple[str, str]] = []
        self.tcp_questions = 0
        self._udp, self._tcp = _sockets()
        self.port: int = self._udp.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self._wake, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, name="dns server", daemon=True)

    def count(self, name: str, kind: str = "") -> int:
        return sum(1 for asked, of in self.questions if asked == name and kind in {"", of})

    def start(self) -> DnsServer:
        self._thread.start()
        return self

    def stop(self) -> None:
        self._wake.send(b"x")
        self._thread.join()
        for each in (self._udp, self._tcp, self._wake, self._woken):
            each.close()

    def __enter__(self) -> DnsServer:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _serve(self) -> None:
        with selectors.DefaultSelector() as selector, contextlib.ExitStack() as connections:
            for each in (self._udp, self._tcp, self._woken):
                selector.register(each, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.fileobj is self._woken:
                        return
                    if key.fileobj is self._udp:
                        self._datagram()
                    elif key.fileobj is self._tcp:
                        connection, _ = self._tcp.accept()
                        connections.enter_context(connection)
                        selector.register(connection, selectors.EVENT_READ)
                    else:
                        assert isinstance(key.fileobj, socket.socket)
                        if not self._stream(key.fileobj):
                            selector.unregister(key.fileobj)
                            key.fileobj.close()

    def _datagram(self) -> None:
        data, peer = self._udp.recvfrom(65535)
        reply = self._reply(data, is_tcp=False)
        if reply is not None:
            with contextlib.suppress(OSError):
                self._udp.sendto(reply, peer)

    def _stream(self, connection: socket.socket) -> bool:
        # Questions are small: they come in one piece on loopback.
        try:
            data = connection.recv(65535)
            if len(data) < 2:
                return False
            self.tcp_questions += 1
            reply = self._reply(data[2:], is_tcp=True)
            if reply is not None:
                connection.sendall(len(reply).to_bytes(2, "big") + reply)
        except OSError:
            return False
        return True

    def _reply(self, data: bytes, *, is_tcp: bool) -> bytes | None:
        try:
            query = dns.message.from_wire(data)
        except dns.exception.DNSException:
            return None
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True).lower()
        self.questions.append((name, dns.rdatatype.to_text(question.rdtype)))
        if name in self.silent:
            return None
        if name in self.garbage:
            return data[:2] + b"\xff" * 9
        response = dns.message.make_response(query, recursion_available=True)
        if self.is_secure:
            response.flags |= dns.flags.AD
        self._answer(response, question.name, question.rdtype)
        try:
            most = 65535 if is_tcp else max(query.payload, 512)
            return response.to_wire(max_size=most)
        except dns.exception.TooBig:
            short = dns.message.make_response(query, recursion_available=True)
            short.flags |= dns.flags.TC
            return short.to_wire()

    def _answer(
        self, response: dns.message.Message, name: dns.name.Name, kind: dns.rdatatype.RdataType
    ) -> None:
        for _ in range(MAX_CNAMES):
            text = name.to_text(omit_final_dot=True).lower()
            records = self.zone.get(text)
            if text in self.servfail:
                response.set_rcode(dns.rcode.SERVFAIL)
                return
            if records is None:
                response.set_rcode(dns.rcode.NXDOMAIN)
                break
            found = records.get(dns.rdatatype.to_text(kind))
            if found:
                response.answer.append(_rrset(name, self.ttl, kind, found))
                return
            alias = records.get("CNAME")
            if not alias:
                break
            link = _rrset(name, self.ttl, dns.rdatatype.CNAME, alias)
            if link not in response.answer:
                response.answer.append(link)
            if text in self.partial:
                return
            name = dns.name.from_text(alias[0])
        soa = [f"ns.invalid. root.invalid. 1 2 3 4 {self.negative_ttl}"]
        response.authority.append(_rrset(dns.name.root, self.negative_ttl, dns.rdatatype.SOA, soa))


def _rrset(
    name: dns.name.Name, ttl: int, kind: dns.rdatatype.RdataType, values: Sequence[str]
) -> dns.rrset.RRset:
    return dns.rrset.from_text_list(name, ttl, "IN", kind, values)


def _sockets() -> tuple[socket.socket, socket.socket]:
    """One port, free for both."""
    while True:
        tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        tcp.bind(("127.0.0.1", 0))
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            udp.bind(tcp.getsockname())
        except OSError:
            tcp.close()
            udp.close()
            continue
        tcp.listen(16)
        return udp, tcp
