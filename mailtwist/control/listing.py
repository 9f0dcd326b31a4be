"""What listens where, as documents: of all nodes, from the store.

The command line works on this alone, so that it needs no listener. A plan made so knows of a
running listener only what its node has told: name, protocol, address.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from twisted.internet.abstract import isIPAddress, isIPv6Address

from mailtwist.config import Listener, Settings, overlay
from mailtwist.control.desired import ROW, desired, name_of
from mailtwist.control.plan import CHANGE, CLOSE, KEEP, OPEN, Plan, Step
from mailtwist.control.sockets import EVERYWHERE
from mailtwist.store import config_values, listener_states, mail_servers
from mailtwist.store.engine import Connection
from mailtwist.store.listener_states import LISTENING, ListenerState, NodeState
from mailtwist.store.mail_servers import MailServer

_FILE: Final = "file/"
_EVERY: Final = frozenset(host for _, host in EVERYWHERE)


@dataclass(frozen=True, slots=True)
class Listing:
    """What the store says at one moment."""

    generation: int  # the number of the last order
    nodes: Sequence[NodeState]
    rows: Sequence[MailServer]
    values: Mapping[str, str]  # of `_config`, without the sealed ones
    changed_at: Mapping[str, int]  # name of a row's listener: microseconds

    def document(self) -> dict[str, Any]:
        """Every node, and every address of its listeners."""
        titles = {name_of(row): row.hostname for row in self.rows}
        return {
            "generation": self.generation,
            "nodes": [_node(each) for each in self.nodes],
            "listeners": [
                _listener(node, state, titles) for node in self.nodes for state in node.listeners
            ],
        }

    def plans(self, settings: Settings) -> dict[int, Plan]:
        """What an order would do on each node, as far as the store tells."""
        return {node.node_id: self._plan(settings, node) for node in self.nodes}

    def plan_of_start(self, settings: Settings) -> Plan:
        """What a server would open that started now."""
        wanted, problems = self._desired(settings)
        return Plan(tuple(Step(OPEN, each) for each in wanted), problems)

    def _desired(self, settings: Settings) -> Any:
        return desired(overlay.overlaid(settings, self.values), self.rows, self._getter(settings))

    def _getter(self, settings: Settings) -> Callable[[str], str]:
        def get(name: str) -> str:
            if overlay.locked_by(settings, name):
                return overlay.in_use(settings, name)
            return self.values.get(name) or overlay.default(name)

        return get

    def _plan(self, settings: Settings, node: NodeState) -> Plan:
        running: dict[str, list[ListenerState]] = {}
        for state in node.listeners:
            if state.state == LISTENING:
                running.setdefault(state.name, []).append(state)
        # The file that counts is the one that the server has read.
        given = tuple(
            _as_listener(name, states) for name, states in running.items() if name.startswith(_FILE)
        )
        wanted, problems = self._desired(replace(settings, listeners=given))
        steps = [
            self._step(each, running.pop(each.name, ()), node) if each not in given else _kept(each)
            for each in wanted
        ]
        steps += [
            Step(CLOSE, _as_listener(name, states))
            for name, states in running.items()
            if not name.startswith(_FILE)
        ]
        return Plan(tuple(steps), problems)

    def _step(self, wanted: Listener, states: Sequence[ListenerState], node: NodeState) -> Step:
        if not states:
            return Step(OPEN, wanted)
        changed = []
        if states[0].protocol != wanted.protocol:
            changed.append("protocol")
        if not _is_at(wanted, states):
            changed.append("address")
        if self.changed_at.get(wanted.name, 0) > node.updated_at:
            changed.append("settings")
        return Step(CHANGE if changed else KEEP, wanted, tuple(changed))


def read(connection: Connection, now: int) -> Listing:
    """``now`` in microseconds."""
    return Listing(
        generation=listener_states.generation(connection),
        nodes=listener_states.every(connection, now),
        rows=mail_servers.every(connection),
        values={row.name: row.value for row in config_values.rows(connection) if not row.is_sealed},
        changed_at={
            f"{ROW}{reference}": changed
            for reference, changed in mail_servers.changed_at(connection).items()
        },
    )


def document(plan: Plan) -> dict[str, Any]:
    """A plan, as REST and the command line show it."""
    return {
        "steps": [each.document() for each in plan.steps],
        "conflicts": [each.text for each in plan.conflicts],
    }


def _node(node: NodeState) -> dict[str, Any]:
    return {
        "node": node.node_id,
        "generation": node.generation,
        "updated_at": _time(node.updated_at),
        "error": node.error,
    }


def _listener(node: NodeState, state: ListenerState, titles: Mapping[str, str]) -> dict[str, Any]:
    return {
        "node": node.node_id,
        "name": titles.get(state.name, state.name),
        "source": state.name,
        "protocol": state.protocol,
        "address": state.address,
        "port": state.port,
        "state": state.state,
        "error": state.error,
        "generation": node.generation,
    }


def _time(microseconds: int) -> str:
    moment = datetime.fromtimestamp(microseconds // 1_000_000, UTC)
    return moment.isoformat().replace("+00:00", "Z")


def _kept(listener: Listener) -> Step:
    return Step(KEEP, listener)


def _as_listener(name: str, states: Sequence[ListenerState]) -> Listener:
    """One that runs, as far as its node has told."""
    hosts = {state.address for state in states}
    host = "" if hosts == _EVERY else states[0].address
    return Listener(name=name, protocol=states[0].protocol, host=host, port=states[0].port)


def _is_at(wanted: Listener, states: Iterable[ListenerState]) -> bool:
    hosts = {state.address for state in states}
    # Names, and machines without IPv6, have other addresses than are written.
    is_there = hosts <= _EVERY if not wanted.host else wanted.host in hosts
    host = wanted.host
    is_name = bool(host) and not isIPAddress(host) and not isIPv6Address(host)
    return (is_there or is_name) and {state.port for state in states} <= {wanted.port}
