"""The sample file and the documentation page, made from the declarations.

``scripts/generate.py`` writes them; ``scripts/check`` fails when they differ from
what this module says.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from mailtwist.config import overlay
from mailtwist.config.declare import Declaration, Section, members
from mailtwist.config.describe import shown, variables_of
from mailtwist.config.given import DECLARATIONS
from mailtwist.config.listeners import NOT_YET, PROTOCOLS, ListenerItem
from mailtwist.config.predecessors import PREDECESSOR_VARIABLES
from mailtwist.config.settings import Settings

# What an administrator writes first; everything else stands in the sample as a comment.
LIVE = frozenset({"hostname", "domains", "data_dir", "listeners"})
SAMPLE_LISTENERS = (
    ("smtp", "0.0.0.0:25"),
    ("submission", "0.0.0.0:587"),
    ("submissions", "0.0.0.0:465"),
    ("imap", "0.0.0.0:143"),
    ("imaps", "0.0.0.0:993"),
    ("http", "127.0.0.1:6336"),
)
WIDTH = 96


def flow(value: Any) -> str:
    """A value on one line of YAML; JSON is YAML, and quotes what must be quoted."""
    return json.dumps(value, ensure_ascii=False)


def _wrapped(text: str, prefix: str) -> Iterator[str]:
    import textwrap

    plain = text.replace("`", "")
    yield from textwrap.wrap(plain, WIDTH, initial_indent=prefix, subsequent_indent=prefix)


def sample(data_dir: str = "") -> str:
    """A configuration file with every key, its meaning and its default.

    ``data_dir``: instead of the example of one.
    """
    lines = [
        "# mailtwist, all settings with their defaults.",
        "# Generated from the declarations in mailtwist/config; scripts/generate.py writes it.",
        "# A line without # is an example to be changed. Times: 90s, 5m, 24h, 5d. Sizes: 64K, 25M.",
        "",
    ]
    for member in members(Settings):
        lines.extend(_sample_member(member, ""))
        lines.append("")
    text = "\n".join(lines).rstrip() + "\n"
    if data_dir:
        example = DECLARATIONS["data_dir"].example
        text = text.replace(f"\ndata_dir: {flow(example)}\n", f"\ndata_dir: {flow(data_dir)}\n")
    return text


def _sample_member(member: Declaration | Section, indent: str) -> Iterator[str]:
    name = member.key.rpartition(".")[2]
    if isinstance(member, Declaration):
        yield from _wrapped(member.doc, f"{indent}# ")
        if member.inactive:
            yield from _wrapped(f"({member.inactive})", f"{indent}# ")
        live = member.key in LIVE
        value = member.example if live else shown(member, member.default)
        yield f"{indent}{'' if live else '#'}{name}: {flow(value)}"
        return
    yield from _wrapped(member.doc, f"{indent}# ")
    if member.many:
        yield f"{member.key}:" if member.key in LIVE else f"#{member.key}: []"
        if member.key in LIVE:
            for protocol, address in SAMPLE_LISTENERS:
                yield f"  - {{protocol: {protocol}, address: {flow(address)}}}"
        names = ", ".join(each.key for each in members(member.cls))
        yield from _wrapped(f"Each takes: {names}.", "  # ")
        return
    yield f"#{name}:"
    for inner in members(member.cls, f"{member.key}."):
        for line in _sample_member(inner, "  "):
            yield line if line.lstrip().startswith("# ") else f"#{line.replace('#', '', 1)}"


PAGE_HEAD = """\
# Configuration

<!-- Generated from the declarations in mailtwist/config by scripts/generate.py. Do not edit. -->

The server reads one file, YAML (`.yaml`, `.yml`) or TOML (`.toml`), named by `--config`.
Without a file the defaults below hold: a sandbox on 127.0.0.1 with its data in `./var`.
An unknown key is an error that names the nearest known one.
`etc/mailtwist.yaml` is a sample with every key.

```sh test
mailtwist init --write-config mailtwist.yaml         # a file to begin with
mailtwist --config mailtwist.yaml config check       # is it right?
mailtwist --config mailtwist.yaml config show        # every value and where it comes from
mailtwist config explain limits.idle_timeout         # what one key means
```

Each value is taken from the first place that gives it:

1. the command line (`--data-dir`, `--database-url`);
2. the variable `MAILTWIST_` and the key in capitals, its dots as underscores (`limits.idle_timeout`
   is `MAILTWIST_LIMITS_IDLE_TIMEOUT`);
3. the variables of older programs, listed below, and `ELEMTA_` and the key;
4. the file;
5. the default.

Times are seconds, or have a unit: `500ms`, `90s`, `5m`, `24h`, `5d`, `1h30m`.
Sizes are octets, or have a unit in steps of 1024: `64K`, `25M`, `1G`.
In a variable a list is written with commas or spaces, and a map as `key=value,key=value`.
`MAILTWIST_CONFIG` names the file where no `--config` does.
"""


STORED_HEAD = """\
## Keys kept in the database

Administrators change these over HTTP while the server runs:

```sh no-test (it needs a token, which docs/rest.md gets)
curl -X POST -H "Authorization: Bearer $TOKEN" \\
    http://127.0.0.1:6336/_config/backend/mail.dkim_selector -d k2
```

`GET /_config` answers all of them, `GET` and `DELETE` on one read and forget it. A change is in
use at once. Listeners alone wait for `sync_mail_servers` or `restart_daptin`. What the command
line, a variable or the file gives cannot be changed here (409, which names the source).
Secrets are sealed before they are stored and never shown. Other keys are kept, and mean nothing
here.
"""


def page() -> str:
    """docs/configuration.md."""
    lines = [PAGE_HEAD, "## Top level", "", *_table(Settings, "")]
    for member in members(Settings):
        if isinstance(member, Section):
            lines += ["", f"## {member.key}", "", member.doc, ""]
            lines += _table(member.cls, "" if member.many else f"{member.key}.")
            if member.cls is ListenerItem:
                lines += ["", *_about_listeners()]
    lines += ["", STORED_HEAD, *_stored_keys()]
    lines += ["", "## Variables of older programs", ""]
    lines += ["| variable | sets |", "|---|---|", *_variable_rows()]
    return "\n".join(lines) + "\n"


def _table(cls: type, prefix: str) -> Iterator[str]:
    yield "| key | meaning | value | default |"
    yield "|---|---|---|---|"
    for member in members(cls, prefix):
        if isinstance(member, Declaration):
            doc = member.doc + (f" *({member.inactive})*" if member.inactive else "")
            kind = member.kind.name + (f" ({member.unit})" if member.unit else "")
            default = flow(shown(member, member.default))
            row = (f"`{member.key}`", doc, kind, f"`{default}`")
            yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"


def _stored_keys() -> Iterator[str]:
    yield "| key | meaning | value | default |"
    yield "|---|---|---|---|"
    for key in overlay.KEYS:
        names = ", ".join(f"`{name}`" for name in (key.name, *key.aliases))
        kind = "secret" if key.secret else key.kind.name
        row = (names, key.doc, kind, f"`{key.default}`" if key.default else "")
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"


def _about_listeners() -> Iterator[str]:
    now = ", ".join(f"`{each}`" for each in PROTOCOLS if each not in NOT_YET)
    later = ", ".join(f"`{each}`" for each in PROTOCOLS if each in NOT_YET)
    yield f"Protocols: {now}."
    yield f"Known and not there yet: {later}."
    yield "`DAPTIN_PORT` and `DAPTIN_HTTPS_PORT` add an `http` and an `https` listener."


def _variable_rows() -> Iterator[str]:
    named: dict[str, list[str]] = {}
    from mailtwist.config.given import DECLARATIONS

    for declaration in DECLARATIONS.values():
        for name in variables_of(declaration):
            if not name.startswith(("MAILTWIST_", "ELEMTA_")):
                named.setdefault(name, []).append(declaration.key)
    for variable in PREDECESSOR_VARIABLES:
        keys = named.setdefault(variable.name, [])
        if variable.key not in keys:
            keys.append(variable.key)
    for name in sorted(named):
        yield f"| `{name}` | {', '.join(f'`{key}`' for key in named[name])} |"
