"""What lies on the disk: settings, data folder, secrets, room, and what the database holds."""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mailtwist.cli.doctor.examination import Finding, fail, ok, warn
from mailtwist.cli.doctor.leaving import is_sandbox
from mailtwist.config import Settings, describe
from mailtwist.config.given import DECLARATIONS
from mailtwist.config.kinds import show_duration, show_size
from mailtwist.errors import ConfigError

if TYPE_CHECKING:
    from mailtwist.store.engine import Connection, Engine

LITTLE_ROOM: Final = 1 << 30
NO_ROOM: Final = 100 << 20
# A tenth of a thousand files: SQLite and a certificate need a handful.
FEW_FILES: Final = 100
MINUTE_US: Final = 60_000_000
# A message that waits longer than this is worth a look.
OLD_US: Final = 24 * 60 * MINUTE_US
# Of which it is looked whether they have a postmaster: each is a line of its own.
MAX_DOMAINS: Final = 10
# The runner looks every few seconds.
LATE_US: Final = 5 * MINUTE_US
# What examples and templates of .env files hold.
_PLACEHOLDERS: Final = re.compile(r"your-|changeme|(.*[@.])?yourdomain\.", re.IGNORECASE)


def configuration(settings: Settings, env_file: str = "") -> Iterator[Finding]:
    """The settings could be read; what is odd about them."""
    name = "configuration"
    for text in settings.warnings:
        yield warn(name, text)
    # `scripts/run` reads it by itself, commands do not.
    if not env_file and Path(".env").is_file():
        advice = "where the server reads it: mailtwist --env-file .env doctor"
        yield warn(name, ".env lies here and was not read", advice)
    for row in describe.values(settings):
        if row.source != "default" and _is_placeholder(row.key, settings):
            yield warn(name, f"{row.key} still holds a placeholder", "put your own value there")
    if settings.inbox.domain and not settings.inbox.api_keys:
        advice = "set inbox.api_keys, or API_KEY"
        yield warn(name, f"nobody can read the mail of {settings.inbox.domain} at /emails", advice)
    if not settings.warnings:
        source = _file_of(settings)
        yield ok(name, f"read from {source}" if source else "the defaults and the environment")


def _is_placeholder(key: str, settings: Settings) -> bool:
    value = describe.value_of(settings, key)
    texts = [value] if isinstance(value, str) else value if isinstance(value, tuple) else ()
    return any(isinstance(text, str) and _PLACEHOLDERS.match(text) for text in texts)


def _file_of(settings: Settings) -> str:
    """The file that was read, "" for none."""
    given = (source for source in settings.sources.values() if source.startswith("file "))
    return next(given, "").removeprefix("file ")


# -- the data folder ------------------------------------------------------------------------


def data_folder(settings: Settings) -> Iterator[Finding]:
    """That it is there, is ours, and has room."""
    folder = Path(settings.data_dir)
    if not folder.is_dir():
        yield fail("data folder", f"{folder} is not there", "run: mailtwist init")
        return
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        yield fail("data folder", f"{folder} cannot be written", "run doctor as the server's user")
        return
    yield ok("data folder", str(folder))
    yield _room(folder)


def _room(folder: Path) -> Finding:
    found = os.statvfs(folder)
    free = found.f_bavail * found.f_frsize
    shown = f"{_rounded(free)} free"
    # Some file systems count no files.
    has_few_files = found.f_files > 0 and found.f_favail < FEW_FILES
    if free < NO_ROOM or has_few_files:
        return fail("disk", shown, f"make room on the disk of {folder}: mail is refused with 452")
    if free < LITTLE_ROOM:
        return warn("disk", shown, f"make room on the disk of {folder}")
    return ok("disk", shown)


def _rounded(octets: int) -> str:
    step = 1 << 30 if octets >= 1 << 30 else 1 << 20
    return show_size(octets // step * step) if octets >= step else f"{octets} octets"


# -- secrets --------------------------------------------------------------------------------


def secrets(settings: Settings, env_file: str = "") -> Iterator[Finding]:
    """Who else may read what nobody else should."""
    name, found = "secrets", False
    for path in filter(_others_read, _keys(settings)):
        found = True
        yield fail(name, f"everybody may read {path}", f"run: chmod o-rwx {path}")
    for path in filter(_others_read, _written(settings, env_file)):
        found = True
        yield warn(name, f"everybody may read {path}", f"run: chmod o-rwx {path}")
    if not found:
        yield ok(name, "the files that hold them are closed to others")


def _keys(settings: Settings) -> Iterator[Path]:
    """What the server has made, and private keys."""
    folder = Path(settings.data_dir)
    # What lies in a closed folder is closed.
    if _others_read(folder, stat.S_IXOTH):
        yield from (folder / each for each in ("secret.key", "sandbox.json", "mailtwist.db"))
    if settings.tls.key_file:
        yield Path(settings.tls.key_file)


def _written(settings: Settings, env_file: str) -> Iterator[Path]:
    """Files that people write, if they hold a secret."""
    if env_file:
        yield Path(env_file)
    given = (key for key, each in DECLARATIONS.items() if each.secret)
    if any(describe.source_of(settings, key).startswith("file ") for key in given):
        yield Path(_file_of(settings))


def _others_read(path: Path, mode: int = stat.S_IROTH) -> bool:
    try:
        return bool(path.stat().st_mode & mode)
    except OSError:
        return False


def tls(settings: Settings) -> Iterator[Finding]:
    """The certificate and key that are named: without them no server starts."""
    from mailtwist.tls.files import named_by

    if named_by(settings).pair is not None:
        yield ok("tls", "the certificate and its key can be read")


# -- the database ---------------------------------------------------------------------------


def database(settings: Settings) -> Iterator[Finding]:
    """That it opens, has the right schema and takes a commit; then what its rows tell."""
    from mailtwist.store import upgrade
    from mailtwist.store.engine import open_engine
    from mailtwist.store.writer import probe

    name = "database"
    engine = open_engine(settings.database_url)
    shown = describe.without_password(settings.database_url)
    try:
        if engine.is_sqlite and not Path(engine.path).exists():
            yield fail(name, f"{engine.path} is not there", "run: mailtwist init")
            return
        with engine.read() as connection:
            if upgrade.current_revision(connection) is None:
                yield fail(name, f"{shown} is empty", "run: mailtwist init")
                return
            try:
                upgrade.check(connection)
            except ConfigError as error:
                yield fail(name, error.text.removeprefix("database_url: "))
                return
        with engine.write() as connection:
            probe(connection)
        yield ok(name, f"{shown} takes a commit, schema {upgrade.SCHEMA_HEAD}")
        yield from _rows(settings, engine)
    finally:
        engine.dispose()


def _rows(settings: Settings, engine: Engine) -> Iterator[Finding]:
    with engine.read() as connection:
        now = time.time_ns() // 1000
        yield from queue(connection, now, has_rate=settings.outbound.rate > 0)
        yield from signatures(settings, connection)
        yield from accounts(settings, connection)
        ours = _domains(settings, connection)
    yield from postmasters(settings, engine, ours)


def queue(connection: Connection, now: int, *, has_rate: bool = False) -> Iterator[Finding]:
    """What waits, for how long, and whether anybody works on it. ``now`` in microseconds.

    ``has_rate``: mail leaves no faster than a rate allows, and so waits.
    """
    from mailtwist.cli.queued import clean
    from mailtwist.store.queue import listing
    from mailtwist.store.queue.condition import condition

    counted = listing.stats(connection)
    found = condition(connection, now, LATE_US)
    waiting = ", ".join(f"{number} {state}" for state, number in counted.items() if number)
    oldest = show_duration((now - found.oldest_at) // MINUTE_US * 60) if found.oldest_at else ""
    shown = f"{waiting}, the oldest {oldest} old" if oldest else waiting or "empty"
    late = f"{shown}; {found.overdue} recipients are due for more than 5 minutes"
    if found.overdue and not (found.is_worked_on or has_rate):
        yield fail("queue", late, "nobody delivers: is a server running? see its log")
    elif found.overdue:
        yield warn("queue", late, "more comes than leaves; see queue.* and outbound.*")
    elif found.oldest_at and found.oldest_at < now - OLD_US:
        yield warn("queue", shown, "see: mailtwist queue list --state deferred")
    else:
        yield ok("queue", shown)
    for each in found.suspended:
        text = f"{each.name} is left alone after {each.failures} failures: {clean(each.reply)}"
        yield warn("queue", text, "it is tried again by itself; at once: mailtwist queue flush")


def signatures(settings: Settings, connection: Connection) -> Iterator[Finding]:
    """Whether mail of our domains can be signed."""
    from mailtwist.store import dkim_keys

    if not settings.dkim.enabled:
        yield warn("dkim", "mail is not signed", "set dkim.enabled; large providers ask for it")
        return
    signing = {key.domain for key in dkim_keys.list(connection) if key.state == dkim_keys.ACTIVE}
    ours = _domains(settings, connection)
    missing = [domain for domain in ours if domain not in signing]
    if missing and not is_sandbox(settings):
        advice = f"make it and publish it: mailtwist dns {missing[0]}"
        yield warn("dkim", f"no key yet for {_some(missing)}", advice)
    elif signing:
        yield ok("dkim", f"keys for {_some(sorted(signing))}")
    else:
        yield ok("dkim", "a key is made with the first mail that leaves")


def _domains(settings: Settings, connection: Connection) -> list[str]:
    """Those of the settings and of rows. Inboxes only receive; what captures is nobody's."""
    from mailtwist.store import domains

    rows = (each.name for each in domains.list(connection) if each.kind == "local")
    return list(dict.fromkeys([*settings.domains, *rows]))


def postmasters(settings: Settings, engine: Engine, ours: Sequence[str]) -> Iterator[Finding]:
    """Whether the address that every domain must have reaches somebody (RFC 5321 §4.5.1)."""
    from mailtwist.cli.filing import inline, run_now
    from mailtwist.mail.address import Address
    from mailtwist.store.directory import Directory

    if settings.auth.backend != "sql" or settings.delivery.mode == "lmtp" or is_sandbox(settings):
        return
    with inline(engine) as database:
        directory = Directory(database, settings)
        for domain in ours[:MAX_DOMAINS]:
            if not run_now(directory.resolve(Address("postmaster", domain))):
                advice = "give it to somebody: aliases: {postmaster: you@example.com}"
                yield warn("accounts", f"nobody gets mail to postmaster@{domain}", advice)


def accounts(settings: Settings, connection: Connection) -> Iterator[Finding]:
    """Whether there is anybody to get mail."""
    from mailtwist.store import accounts as rows

    if settings.auth.backend != "sql" or settings.inbox.domain:
        return
    if not rows.count(connection):
        yield warn("accounts", "there is none", "run: mailtwist account add you@example.com")


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"{', '.join(names[:5])}{more}"
