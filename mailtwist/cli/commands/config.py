"""``mailtwist config``: what is set, where it comes from, and what it means."""

from __future__ import annotations

import json
from typing import Any

import click

from mailtwist.cli.context import Context, json_option, print_json
from mailtwist.config import InvalidConfiguration, describe
from mailtwist.errors import ConfigError


@click.group()
def config() -> None:
    """Show, check and explain the configuration."""


@config.command("show")
@json_option
@click.pass_obj
def show(context: Context, as_json: bool) -> None:
    """Print every value and where it comes from; secrets are masked."""
    rows = list(describe.values(context.settings))
    if as_json:
        print_json({row.key: {"value": row.value, "source": row.source} for row in rows})
        return
    for row in rows:
        origin = "" if row.source == "default" else f"  # {row.source}"
        click.echo(f"{row.key}: {_one_line(row.value)}{origin}")


def _one_line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


@config.command("check")
@json_option
@click.pass_obj
def check(context: Context, as_json: bool) -> None:
    """Say whether the server would start with this configuration."""
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    try:
        warnings = context.settings.warnings
    except InvalidConfiguration as error:
        problems = error.problems
    except ConfigError as error:
        problems = (error.text,)
    if as_json:
        print_json({"ok": not problems, "errors": problems, "warnings": warnings})
    else:
        for text in warnings:
            click.echo(f"warning: {text}")
        for text in problems:
            click.echo(f"error: {text}")
    if problems:
        count = f"{len(problems)} errors" if len(problems) > 1 else problems[0]
        raise ConfigError(count)
    if not as_json:
        click.echo("the configuration is right")


@config.command("explain")
@click.argument("key")
@json_option
@click.pass_obj
def explain(context: Context, key: str, as_json: bool) -> None:
    """Print what KEY means, its kind, unit, default, value and source."""
    about = describe.explanation(context.settings, key)
    if as_json:
        print_json(about)
        return
    width = max(len(name) for name in about)
    for name, value in about.items():
        text = value if isinstance(value, str) and name != "value" else _one_line(value)
        click.echo(f"{name.ljust(width)}  {text}")
