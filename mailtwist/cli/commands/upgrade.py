"""``mailtwist upgrade-in-place``: a new process in the place of the running one."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Final

import click

from mailtwist.cli.context import Context, json_option, print_json
from mailtwist.control.upgrade import DONE, END_S, READY_S, Outcome, read_outcome
from mailtwist.errors import MailError

# The old process may first have to end one that is not ready in time.
WAIT_S: Final = READY_S + END_S + 10
LOOK_S: Final = 0.1


@click.command("upgrade-in-place")
@json_option
@click.pass_obj
def upgrade(context: Context, as_json: bool) -> None:
    """Replace the running server by a new process of what is installed now, without a gap.

    The new process takes over the listening sockets; the old one ends when its sessions have
    ended. If the new one does not start, the old one goes on and the reason is printed
    (status 1).
    """
    from mailtwist.control import pid_file

    data_dir = Path(context.settings.data_dir)
    process = pid_file.running(data_dir)
    if process is None:
        raise MailError(f"no server runs on {data_dir}")
    outcome = _replaced(data_dir, process)
    if as_json:
        shown = {"old": outcome.old, "new": outcome.new, "reason": outcome.reason}
        print_json({"upgraded": outcome.state == DONE, **shown})
    if outcome.state != DONE:
        raise MailError(f"process {outcome.old} goes on: {outcome.reason}")
    if not as_json:
        click.echo(
            f"process {outcome.new} serves now; process {outcome.old} ends with its last session"
        )


def _replaced(data_dir: Path, process: int) -> Outcome:
    """Order it and wait for what comes of it."""
    before = read_outcome(data_dir)
    os.kill(process, signal.SIGUSR2)
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        now = read_outcome(data_dir)
        if now is not None and now.is_over and (before is None or now != before):
            return now
        time.sleep(LOOK_S)
    raise MailError(f"process {process} has not answered in {WAIT_S:g} s")
