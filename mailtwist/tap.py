"""``twistd mailtwist``: the options and the service."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from twisted.application.service import IService
from twisted.python.usage import Options as UsageOptions
from twisted.python.usage import UsageError

from mailtwist import __version__
from mailtwist.errors import ConfigError


class Options(UsageOptions):
    """What stands behind ``twistd mailtwist``; each option beats file and environment."""

    synopsis = "[options]"
    longdesc = "A mail server: SMTP, submission, IMAP and HTTP over one SQL store."
    optParameters = (  # noqa: N815
        ("config", "c", None, "The configuration file, YAML or TOML."),
        ("data-dir", None, None, "The folder of the database and the keys."),
        ("database-url", None, None, "The database, if not SQLite in the data folder."),
    )

    def opt_version(self) -> None:
        """Print the version of mailtwist and exit."""
        print(f"mailtwist {__version__}")  # noqa: T201
        raise SystemExit(0)

    def postOptions(self) -> None:  # noqa: N802
        # Here, while the working directory is the one that twistd was started in.
        from mailtwist.control import handover
        from mailtwist.control.upgrade import Program

        self.program = Program.of_this_process()
        self.pid_file = TwistdPidFile(self.parent)
        if handover.current() is not None:
            # The process that starts us is a daemon already, and its pid file is still there.
            if self.parent is not None:
                self.parent["nodaemon"] = True
            self.pid_file.own(False)

    def parseArgs(self, *extra: str) -> None:  # noqa: N802
        if extra:
            raise UsageError(f"Unexpected argument: {extra[0]}")


class TwistdPidFile:
    """The file of ``twistd --pidfile``: it names the process that serves, whoever wrote it."""

    def __init__(self, twistd: Any) -> None:
        self._twistd = twistd
        path = twistd["pidfile"] if twistd is not None else ""
        # twistd itself makes it absolute only after this.
        self._path = os.path.abspath(path) if path else ""

    def own(self, is_ours: bool) -> None:
        """Write it and let twistd remove it at the end, or have twistd know of none."""
        if not self._path:
            return
        self._twistd["pidfile"] = self._path if is_ours else ""
        if is_ours:
            try:
                Path(self._path).write_text(f"{os.getpid()}\n", encoding="ascii")
            except OSError as error:
                # With --uid it was written by root.
                from twisted.logger import Logger

                Logger().warn("the pid file names an older process: {error}", error=error)


def makeService(options: Any) -> IService:  # noqa: N802
    """Build the service; ends the process with one line when the configuration is wrong."""
    # Here, because twistd imports this module for its --help.
    from twisted.internet import reactor

    from mailtwist.config import load
    from mailtwist.control.services import MailService, complain

    given = {"data_dir": options["data-dir"], "database_url": options["database-url"]}
    overrides = {key: value for key, value in given.items() if value is not None}
    try:
        return MailService(
            load(options["config"], os.environ, overrides),
            reactor,
            program=options.program,
            own_files=options.pid_file.own,
        )
    except ConfigError as error:
        complain(error)
        raise SystemExit(1) from error
