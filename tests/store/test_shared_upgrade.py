"""A schema upgrade while a process of the version before goes on."""

from __future__ import annotations

import pytest

from mailtwist.errors import ConfigError
from mailtwist.store.engine import open_engine
from mailtwist.store.upgrade import SCHEMA_HEAD, current_revision, upgrade


@pytest.fixture
def engine(tmp_path):
    engine = open_engine(f"sqlite:///{tmp_path}/store.db")
    yield engine
    engine.dispose()


def revision(engine):
    with engine.read() as connection:
        return current_revision(connection)


def test_revisions_that_only_add_are_run_beside_an_older_process(engine):
    upgrade(engine, to="0003_rest")
    assert upgrade(engine, is_shared=True)
    assert revision(engine) == SCHEMA_HEAD
    assert not upgrade(engine, is_shared=True)


def test_others_are_refused_and_nothing_is_changed(engine):
    upgrade(engine, to="0002_queue")
    with pytest.raises(ConfigError, match="0003_rest cannot be shared"):
        upgrade(engine, is_shared=True)
    assert revision(engine) == "0002_queue"
    assert upgrade(engine)


def test_an_empty_database_has_no_older_process(engine):
    assert upgrade(engine, is_shared=True)
