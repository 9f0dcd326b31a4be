"""``mailtwist init``: everything a server needs before it starts, so that starting is quick."""

from __future__ import annotations

from pathlib import Path

import click

from mailtwist.cli.context import Context, json_option, print_json


@click.command()
@click.option("--write-config", metavar="FILE", help="Also write a sample configuration there.")
@json_option
@click.pass_obj
def init(context: Context, write_config: str | None, as_json: bool) -> None:
    """Make the data folder and the database; what is there stays as it is."""
    settings = context.settings
    if write_config is not None:
        _write_sample(Path(write_config), settings.data_dir)
    with context.store():
        pass
    from mailtwist.config.describe import without_password

    url = without_password(settings.database_url)
    if as_json:
        print_json({"data_dir": settings.data_dir, "database_url": url, "config": write_config})
        return
    click.echo(f"data folder  {settings.data_dir}")
    click.echo(f"database     {url}")
    if write_config is not None:
        click.echo(f"sample       {write_config}")


def _write_sample(path: Path, data_dir: str) -> None:
    from mailtwist.config.documents import sample

    # "x": a configuration that is there is somebody's work.
    with path.open("x", encoding="utf-8") as file:
        file.write(sample(data_dir))
