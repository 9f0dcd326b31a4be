"""``mailtwist serve``: the server in the foreground, as ``twistd -n mailtwist`` runs it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from mailtwist.cli.context import Context, json_option

if TYPE_CHECKING:
    from mailtwist.control.runtime import Runtime


@click.command()
@json_option
@click.pass_obj
def serve(context: Context, as_json: bool) -> None:
    """Run the server in the foreground until Ctrl-C or SIGTERM.

    With --json one line among those of the log says what is bound, once all is.
    """
    from twisted.internet import reactor

    from mailtwist.control.services import serve as run

    def ready(runtime: Runtime) -> None:
        if as_json:
            click.echo(json.dumps({"listeners": bound(runtime)}))

    run(context.settings, reactor, ready=ready)


def bound(runtime: Runtime) -> list[dict[str, object]]:
    """What listeners.json says, just written."""
    rows: list[dict[str, object]] = json.loads((runtime.data_dir / "listeners.json").read_text())
    return rows
