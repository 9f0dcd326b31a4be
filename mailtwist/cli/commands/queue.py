"""``mailtwist queue``: what waits to leave, why, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from mailtwist.cli.context import Context, json_option, print_json, print_rows
from mailtwist.errors import NotFound

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from mailtwist.store.engine import Engine
    from mailtwist.store.queue.listing import Listed

STATES = ("active", "deferred", "held", "failed", "delivered")
PAGE = 1000
HIGHEST_ID = 2**63 - 1
BLOCK = 1 << 20

ids_argument = click.argument("ids", metavar="ID...", nargs=-1, required=True)


@click.group()
def queue() -> None:
    """Look at outgoing mail, retry it, hold it, delete it.

    ID is what the server said behind "queued as".
    """


def _number(text: str) -> int:
    """An id as the store knows it. Raises: NotFound for what can be none."""
    if text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= HIGHEST_ID:
        return int(text)
    raise NotFound(f"No such message in the queue: {text}")


# -- looking --------------------------------------------------------------------------------


@queue.command("list")
@click.option("--state", type=click.Choice(STATES), help="Only messages in this state.")
@click.option("--sender", metavar="TEXT", help="Only of senders with this in their address.")
@click.option("--recipient", metavar="TEXT", help="Only to recipients with this in theirs.")
@click.option("--limit", type=click.IntRange(0), default=0, help="The newest so many; 0: all.")
@json_option
@click.pass_obj
def list_(
    context: Context,
    state: str | None,
    sender: str | None,
    recipient: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """List what is in the queue, the newest first.

    Delivered messages are shown with --state delivered only. States: active (being tried, or
    not tried yet), deferred (tried, waits), held (by you), failed (returned to its sender).
    """
    from mailtwist.cli import queued
    from mailtwist.store.ids import now_us

    with context.store() as engine:
        chosen = {"state": state, "sender": sender, "recipient": recipient}
        found = list(_pages(engine, limit, **chosen))
    if as_json:
        print_json([queued.listed(each) for each in found])
        return
    now = now_us()
    rows = [queued.row(each, now) for each in found]
    print_rows(rows, ("id", "state", "age", "next", "sender", "recipients", "last_error"))


def _pages(engine: Engine, limit: int, **chosen: Any) -> Iterator[Listed]:
    from mailtwist.store.queue import listing

    # Chosen once: to choose each page anew would look at the whole queue for each.
    with engine.read() as connection:
        found = listing.ids(connection, limit=limit or listing.NO_LIMIT, **chosen)
    for start in range(0, len(found), PAGE):
        with engine.read() as connection:
            yield from listing.lines(connection, found[start : start + PAGE])


@queue.command("view")
@click.argument("id_", metavar="ID")
@json_option
@click.pass_obj
def view(context: Context, id_: str, as_json: bool) -> None:
    """Show a message with every attempt and what the other side said."""
    from mailtwist.cli import queued
    from mailtwist.store.ids import now_us
    from mailtwist.store.queue import listing

    number = _number(id_)
    with context.store() as engine, engine.read() as connection:
        found = listing.view(connection, number)
    if as_json:
        print_json(queued.viewed(found))
    else:
        click.echo("\n".join(queued.lines(found, now_us())))


@queue.command("content")
@click.argument("id_", metavar="ID")
@click.pass_obj
def content(context: Context, id_: str) -> None:
    """Print a message as it leaves."""
    from mailtwist.store.queue import listing

    number = _number(id_)
    # One transaction, so that the sweeper takes nothing away between two blocks.
    with context.store() as engine, engine.read() as connection:
        found = listing.view(connection, number)
        if not found.content_id:
            raise NotFound("The message was delivered; its content is no longer kept")
        blocks = _blocks(connection, found.content_id, found.content_octets)
        click.echo(found.prefix + next(blocks), nl=False)
        for block in blocks:
            click.echo(block, nl=False)


def _blocks(connection: Connection, content_id: int, octets: int) -> Iterator[bytes]:
    from mailtwist.store import content as contents

    for start in range(0, max(octets, 1), BLOCK):
        yield contents.read(connection, content_id, start, start + BLOCK)


@queue.command("stats")
@json_option
@click.pass_obj
def stats(context: Context, as_json: bool) -> None:
    """Count the messages in each state."""
    from mailtwist.store.queue import listing

    with context.store() as engine, engine.read() as connection:
        counted = listing.stats(connection)
    if as_json:
        print_json(counted)
    else:
        print_rows([counted], tuple(counted))


# -- acting ---------------------------------------------------------------------------------


def _act(
    context: Context,
    ids: tuple[str, ...],
    as_json: bool,
    done: str,
    act: Callable[[Connection, int], None],
) -> None:
    """Do it to all the messages, or to none when one of them is unknown."""
    numbers = [_number(each) for each in ids]
    with context.store() as engine, engine.write() as connection:
        for number in numbers:
            act(connection, number)
    if as_json:
        print_json({"ids": [str(number) for number in numbers], "done": done})
    else:
        for number in numbers:
            click.echo(f"{done} {number}")


@queue.command("retry")
@ids_argument
@json_option
@click.pass_obj
def retry(context: Context, ids: tuple[str, ...], as_json: bool) -> None:
    """Try messages again now; those that failed start over."""
    from mailtwist.store.ids import now_us
    from mailtwist.store.queue import control

    _act(context, ids, as_json, "due now:", partial(control.retry, now=now_us()))


@queue.command("hold")
@ids_argument
@json_option
@click.pass_obj
def hold(context: Context, ids: tuple[str, ...], as_json: bool) -> None:
    """Keep messages where they are until they are released."""
    from mailtwist.store.queue import control

    _act(context, ids, as_json, "held", control.hold)


@queue.command("release")
@ids_argument
@json_option
@click.pass_obj
def release(context: Context, ids: tuple[str, ...], as_json: bool) -> None:
    """Let held messages go on, at once."""
    from mailtwist.store.ids import now_us
    from mailtwist.store.queue import control

    _act(context, ids, as_json, "released", partial(control.release, now=now_us()))


@queue.command("delete")
@ids_argument
@json_option
@click.pass_obj
def delete(context: Context, ids: tuple[str, ...], as_json: bool) -> None:
    """Remove messages; nobody is told."""
    from mailtwist.store.ids import now_us
    from mailtwist.store.queue import control

    _act(context, ids, as_json, "deleted", partial(control.delete, now=now_us()))


@queue.command("flush")
@json_option
@click.pass_obj
def flush(context: Context, as_json: bool) -> None:
    """Make every deferred message due now; held ones stay."""
    from mailtwist.store.ids import now_us
    from mailtwist.store.queue import control, listing

    with context.store() as engine, engine.write() as connection:
        control.retry(connection, None, now_us())
        waiting = listing.stats(connection)["deferred"]
    if as_json:
        print_json({"due": waiting})
    else:
        click.echo(f"due now: {waiting}")


# -- suppressed addresses -------------------------------------------------------------------


@queue.group("suppressed")
def suppressed() -> None:
    """Addresses elsewhere that were refused for good, and so are refused here."""


@suppressed.command("list")
@json_option
@click.pass_obj
def suppressed_list(context: Context, as_json: bool) -> None:
    """List them with their bounces; those marked * are refused now."""
    from mailtwist.cli import queued
    from mailtwist.store.queue import suppression

    after = ""
    found: list[dict[str, Any]] = []
    limit = context.settings.queue.suppress_after
    with context.store() as engine, engine.read() as connection:
        while page := suppression.list(connection, after=after, limit=PAGE):
            for each in page:
                is_refused = bool(limit) and each.bounces >= limit
                found.append({**queued.suppressed(each), "refused": is_refused})
            after = page[-1].address
    if as_json:
        print_json(found)
        return
    for row in found:
        row["refused"] = "*" if row["refused"] else ""
        row["reply"] = queued.clean(row["reply"])
    print_rows(found, ("refused", "address", "bounces", "last_at", "reply"))


@suppressed.command("remove")
@click.argument("address")
@json_option
@click.pass_obj
def suppressed_remove(context: Context, address: str, as_json: bool) -> None:
    """Forget the bounces of an address, so that mail to it is taken again."""
    from mailtwist.mail.address import parse_address
    from mailtwist.store.queue import suppression

    parsed = str(parse_address(address))
    with context.store() as engine, engine.write() as connection:
        suppression.remove(connection, parsed)
    if as_json:
        print_json({"address": parsed})
    else:
        click.echo(f"removed {parsed}")
