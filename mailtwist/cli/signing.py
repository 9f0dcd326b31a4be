"""What commands about keys work with: the store and the key file, in this very thread."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mailtwist.cli.context import Context
from mailtwist.cli.filing import inline

if TYPE_CHECKING:
    from mailtwist.policy.keyring import Keyring


@contextmanager
def open_keyring(context: Context) -> Iterator[Keyring]:
    """The keys of the open store."""
    from mailtwist.policy.hashing import Inline
    from mailtwist.policy.keyring import Keyring
    from mailtwist.store.secrets import load_or_make

    settings = context.settings
    with context.store() as engine, inline(engine) as database:
        secrets = load_or_make(Path(settings.data_dir))
        yield Keyring(database, secrets, Inline(), settings.dkim)
