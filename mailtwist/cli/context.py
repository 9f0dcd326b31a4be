"""What every command shares: the settings, the open store, and how results are printed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from mailtwist.config import Settings, load

if TYPE_CHECKING:
    from mailtwist.store.engine import Engine

Command = TypeVar("Command", bound=Callable[..., Any])

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


class Context:
    """The global options, and what follows from them when a command asks."""

    def __init__(
        self, config: str | None, options: Mapping[str, str | None], *, env_file: str = ""
    ) -> None:
        self.config = config
        self.env_file = env_file  # read already
        self.options = {key: value for key, value in options.items() if value is not None}

    @cached_property
    def settings(self) -> Settings:
        return self.load()

    def load(self, **more: Any) -> Settings:
        """The settings with further values that count as given on the command line."""
        return load(self.config, os.environ, {**self.options, **more})

    @contextmanager
    def store(self, *, upgrades: bool = False) -> Iterator[Engine]:
        """The open database, made first where there is none; ``upgrades``: an old one too.

        Raises ``ConfigError`` when its schema is not the one of this program.
        """
        from mailtwist.store import upgrade
        from mailtwist.store.engine import open_engine

        make_data_dir(self.settings)
        engine = open_engine(self.settings.database_url)
        try:
            with engine.write() as connection:
                is_new = upgrade.current_revision(connection) is None
            if is_new or upgrades:
                upgrade.upgrade(engine)
            with engine.read() as connection:
                upgrade.check(connection)
            yield engine
        finally:
            engine.dispose()


def make_data_dir(settings: Settings) -> None:
    """Make the data folder for its owner alone. It will hold keys and everybody's mail."""
    Path(settings.data_dir).mkdir(mode=0o700, parents=True, exist_ok=True)


def print_json(value: object) -> None:
    click.echo(json.dumps(value, ensure_ascii=False, indent=2, default=str))


def print_rows(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Rows as aligned columns under their names; nothing when there are none."""
    if not rows:
        return
    table = [list(columns), *([str(row[name]) for name in columns] for row in rows)]
    widths = [max(len(line[n]) for line in table) for n in range(len(columns))]
    for line in table:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        click.echo("  ".join(cells).rstrip())
