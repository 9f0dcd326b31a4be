"""Listeners of rows and keys whose ports only a privileged process may bind.

``twistd --uid`` gives up its privileges before the store is opened, and the store must not be
opened by root: its files would belong to root. So a child process that is its owner reads the
rows, while this one still may bind what they want.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from twisted.logger import Logger

from mailtwist.config import Listener, Settings, overlay
from mailtwist.control.desired import desired
from mailtwist.control.kept import first_free_port
from mailtwist.store.mail_servers import MailServer

log = Logger()

PATIENCE_S: Final = 20.0


def privileged(settings: Settings) -> tuple[Listener, ...]:
    """What is to be bound now because it cannot be bound later; () unless we are root.

    Blocks. Whatever is wrong with the store is told later, when it is opened.
    """
    uid, gid = _owner(settings) if os.geteuid() == 0 else (0, 0)
    # Root's own store is opened by root, who may bind what he likes.
    if uid == 0:
        return ()
    found = _asked(settings.database_url, uid, gid)
    rows = [MailServer(**row) for row in found.get("rows", ())]
    values: Mapping[str, str] = found.get("values", {})
    wanted, _ = desired(settings, rows, lambda name: values.get(name) or overlay.default(name))
    low = first_free_port()
    return tuple(each for each in wanted if each not in settings.listeners and 0 < each.port < low)


def _owner(settings: Settings) -> tuple[int, int]:
    """User and group of the data folder; root where there is none yet."""
    try:
        found = Path(settings.data_dir).stat()
    except OSError:
        return 0, 0
    return found.st_uid, found.st_gid


def _asked(url: str, uid: int, gid: int) -> Mapping[str, Any]:
    command = (sys.executable, "-m", "mailtwist.control.early")
    try:
        done = subprocess.run(
            command,
            input=url.encode(),
            capture_output=True,
            timeout=PATIENCE_S,
            check=True,
            user=uid,
            group=gid,
            extra_groups=[],
        )
        found: Mapping[str, Any] = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        log.warn("ports of rows are not bound before the start: {error}", error=error)
        return {}
    return found


def main() -> None:
    """The child: what the store says, as JSON."""
    from mailtwist.store import config_values, mail_servers
    from mailtwist.store.engine import open_engine

    engine = open_engine(sys.stdin.read())
    found: dict[str, Any] = {}
    with engine.read() as connection:
        if mail_servers.is_there(connection):
            found["rows"] = [asdict(each) for each in mail_servers.every(connection)]
            values = config_values.rows(connection)
            found["values"] = {each.name: each.value for each in values if not each.is_sealed}
    engine.dispose()
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
