"""``mailtwist listeners``: what is bound, what an order would move, and that order.

Works on the store, beside whatever server runs, also where none listens for HTTP.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from mailtwist.cli.context import Context, json_option, print_json, print_rows

if TYPE_CHECKING:
    from mailtwist.control.listing import Listing
    from mailtwist.control.plan import Plan
    from mailtwist.store.engine import Engine

# How long `apply` waits for all nodes, and how often it looks.
PATIENCE_S: Final = 10.0
LOOK_S: Final = 0.1

NOBODY: Final = "no server is running"
_COLUMNS: Final = ("node", "name", "protocol", "address", "state", "error")
_STEPS: Final = ("node", "action", "name", "protocol", "address", "changed")


@click.group()
def listeners() -> None:
    """Show what is bound, and bring it in line with rows and keys."""


@listeners.command("list")
@json_option
@click.pass_obj
def list_(context: Context, as_json: bool) -> None:
    """List what every running server has bound, and what it could not bind."""
    with context.store() as engine:
        found = _read(engine)
    if as_json:
        print_json(found.document())
    elif found.nodes:
        print_rows([_with_port(each) for each in found.document()["listeners"]], _COLUMNS)
        _say_errors(found)
    else:
        click.echo(NOBODY)


@listeners.command("plan")
@json_option
@click.pass_obj
def plan(context: Context, as_json: bool) -> None:
    """Show what an order would open, change and close.

    Without a running server: what one would open that started now. Status 1 when the order
    would be refused.
    """
    with context.store() as engine:
        found = _read(engine)
    plans: dict[int | None, Plan] = dict(found.plans(context.settings).items())
    if not plans:
        plans[None] = found.plan_of_start(context.settings)
    _show_plans(plans, as_json)
    if any(each.conflicts for each in plans.values()):
        raise SystemExit(1)


@listeners.command("apply")
@json_option
@click.pass_obj
def apply(context: Context, as_json: bool) -> None:
    """Order every running server to open, close and change what differs, and wait for it.

    Each does all of it or nothing. Status 1 when one could not, with the reason, or has not
    answered within 10 s.
    """
    from mailtwist.store import listener_states

    with context.store() as engine:
        with engine.write() as connection:
            ordered = listener_states.order(connection)
        found = _wait(engine, ordered)
    late = [each.node_id for each in found.nodes if each.generation < ordered]
    if as_json:
        print_json({"ordered": ordered, "late": late, **found.document()})
    else:
        print_rows([_with_port(each) for each in found.document()["listeners"]], _COLUMNS)
    _complain(found, late)


def _read(engine: Engine) -> Listing:
    from mailtwist.control import listing
    from mailtwist.store.ids import now_us

    with engine.read() as connection:
        return listing.read(connection, now_us())


def _wait(engine: Engine, ordered: int) -> Listing:
    """What the nodes say once all have carried the order out, or after 10 s."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        found = _read(engine)
        is_done = all(each.generation >= ordered for each in found.nodes)
        if is_done or time.monotonic() > deadline:
            return found
        time.sleep(LOOK_S)


def _show_plans(plans: dict[int | None, Plan], as_json: bool) -> None:
    from mailtwist.control import listing

    documents = [{"node": node, **listing.document(each)} for node, each in plans.items()]
    if as_json:
        print_json({"plans": documents})
        return
    if None in plans:
        click.echo(f"{NOBODY}; one that starts would open:")
    rows = [
        {**step, "node": each["node"] or "", "changed": ", ".join(step["changed"])}
        for each in documents
        for step in each["steps"]
    ]
    print_rows(rows, _STEPS)
    for text in dict.fromkeys(text for each in documents for text in each["conflicts"]):
        click.echo(f"conflict: {text}", err=True)


def _with_port(listener: dict[str, Any]) -> dict[str, Any]:
    from mailtwist.config.names import join_host_port

    address = join_host_port(listener["address"], listener["port"])
    return {**listener, "address": address if listener["protocol"] else ""}


def _say_errors(found: Listing) -> None:
    for node in found.nodes:
        if node.error:
            click.echo(f"node {node.node_id}: the last order was refused: {node.error}", err=True)


def _complain(found: Listing, late: Sequence[int]) -> None:
    """End with status 1 unless every node has done what was ordered."""
    _say_errors(found)
    if not found.nodes:
        click.echo(f"mailtwist: {NOBODY}; the next one that starts opens all", err=True)
    for node_id in late:
        click.echo(f"node {node_id}: no answer within {PATIENCE_S:.0f} s", err=True)
    if late or not found.nodes or any(each.error for each in found.nodes):
        raise SystemExit(1)
