"""The SMTP client in a process of its own, for a server that has much to send.

One interpreter runs one thread at a time: what leaves would share a processor with what comes
in, though another one is idle. So the octets of sessions with hosts, and their TLS, move to a
process that does nothing else, while everything that decides stays here. A server that
sends little never starts it, and one that cannot have it does the work itself.

:mod:`.connector` chooses, :mod:`.process` starts and ends the process, :mod:`.proxy` and
:mod:`.session` stand here for what it holds, :mod:`.program` runs there, :mod:`.channel` lies
between.
"""

from mailtwist.queue.client_process.connector import ChoosingConnector

__all__ = ["ChoosingConnector"]
