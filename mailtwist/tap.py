"""``twistd mailtwist``: the options and the service."""

from __future__ import annotations

import os
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

    def parseArgs(self, *extra: str) -> None:  # noqa: N802
        if extra:
            raise UsageError(f"Unexpected argument: {extra[0]}")


def makeService(options: Any) -> IService:  # noqa: N802
    """Build the service; ends the process with one line when the configuration is wrong."""
    # Here, because twistd imports this module for its --help.
    from twisted.internet import reactor

    from mailtwist.config import load
    from mailtwist.control.services import MailService, complain

    given = {"data_dir": options["data-dir"], "database_url": options["database-url"]}
    overrides = {key: value for key, value in given.items() if value is not None}
    try:
        return MailService(load(options["config"], os.environ, overrides), reactor)
    except ConfigError as error:
        complain(error)
        raise SystemExit(1) from error
