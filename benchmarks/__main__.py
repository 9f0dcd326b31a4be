"""Measure a server on this machine: ``python -m benchmarks [WORKLOAD...] [--database-url URL]``.

Figures of one run on one machine may be compared with each other, no others.
Nothing else should run meanwhile; the load and the server share the processors.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator

from benchmarks import actions, certificates, idle, outgoing, rest, send, sync, waiting, workloads
from benchmarks.server import Server

# These start servers of their own: they differ in their settings.
OWN_SERVERS: dict[str, Callable[[str], Iterator[workloads.Row]]] = {
    "outgoing": outgoing.relay,
    "outgoing-dead": outgoing.dead,
    "outgoing-dkim": outgoing.dkim,
    "rest": rest.pages,
    "send": send.send,
    "certificates": certificates.certificates,
    "sync": sync.sync,
    "actions": actions.actions,
    "idle-smtp": idle.smtp,
    "waiting": waiting.waiting,
}
WORKLOADS: dict[str, Callable[[Server], Iterator[workloads.Row]]] = {
    "idle": workloads.idle,
    "inbound": workloads.inbound,
    "stall": workloads.stall,
    "imap-10k": lambda server: workloads.imap(server, 10_000),
    "imap-100k": lambda server: workloads.imap(server, 100_000),
}


def main() -> None:
    names = [*WORKLOADS, *OWN_SERVERS]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("workload", nargs="*", help=f"of {', '.join(names)}; default: all")
    parser.add_argument("--database-url", default="", help="instead of SQLite: an empty database")
    options = parser.parse_args()
    unknown = set(options.workload) - set(names)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    write = sys.stdout.write
    write("| workload | case | metric | figure | unit |\n| --- | --- | --- | ---: | --- |\n")
    for name in options.workload or names:
        for case, metric, figure, unit in _rows(name, options.database_url):
            write(f"| {name} | {case} | {metric} | {figure:,.3g} | {unit} |\n")
            sys.stdout.flush()


def _rows(name: str, database_url: str) -> Iterator[workloads.Row]:
    if name in OWN_SERVERS:
        yield from OWN_SERVERS[name](database_url)
        return
    with Server(database_url=database_url) as server:
        yield from WORKLOADS[name](server)


if __name__ == "__main__":
    main()
