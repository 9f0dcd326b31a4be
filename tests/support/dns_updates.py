"""The primary server of a DNS zone that takes signed updates, as one for dns-01 does."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Any

import dns.exception
import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import dns.tsigkeyring

KEY_NAME = "acme-key.example.com"
SECRET = "c2VjcmV0IG9mIHRoZSB0ZXN0cywgMzIgb2N0ZXRzISE="
ZONE = "example.com"


class Primary:
    """SOA, CNAME and updates over TCP, one after another; ``told`` hears of each change."""

    def __init__(self, told: Callable[[str, str, str], object] | None = None) -> None:
        self._told = told or (lambda verb, name, value: None)
        self.aliases: dict[str, str] = {}
        self.records: set[tuple[str, str]] = set()
        self.refused = dns.rcode.NOERROR
        self.updates = 0
        self._keyring = dns.tsigkeyring.from_text({KEY_NAME: ("hmac-sha256.", SECRET)})
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        length = int.from_bytes(connection.recv(2), "big")
        wire = connection.recv(length)
        try:
            asked = dns.message.from_wire(wire, keyring=self._keyring)
        except dns.exception.DNSException:
            asked = dns.message.from_wire(wire, keyring=False)
            answer = dns.message.make_response(asked)
            answer.set_rcode(dns.rcode.NOTAUTH)
        else:
            answer = dns.message.make_response(asked)
            if asked.opcode() == dns.opcode.UPDATE:
                answer.set_rcode(self._update(asked))
            else:
                self._query(asked, answer)
        octets = answer.to_wire()
        connection.sendall(len(octets).to_bytes(2, "big") + octets)

    def _update(self, message: Any) -> dns.rcode.Rcode:
        self.updates += 1
        if not message.had_tsig or self.refused:
            return self.refused or dns.rcode.REFUSED
        for rrset in message.update:
            for value in rrset:
                entry = (rrset.name.to_text(True), b"".join(value.strings).decode())
                if rrset.deleting == dns.rdataclass.NONE:
                    self.records.discard(entry)
                    self._told("remove", *entry)
                else:
                    self.records.add(entry)
                    self._told("add", *entry)
        return dns.rcode.NOERROR

    def _query(self, asked: Any, answer: Any) -> None:
        name = asked.question[0].name
        kind = dns.rdatatype.to_text(asked.question[0].rdtype)
        text = name.to_text(True)
        answer.flags |= dns.flags.AA
        if kind == "CNAME" and text in self.aliases:
            target = f"{self.aliases[text]}."
            answer.answer.append(dns.rrset.from_text(name, 60, "IN", "CNAME", target))
        elif kind == "SOA" and text == ZONE:
            soa = f"ns.{ZONE}. root.{ZONE}. 1 60 60 60 60"
            answer.answer.append(dns.rrset.from_text(name, 60, "IN", "SOA", soa))
