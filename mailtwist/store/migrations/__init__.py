"""The revisions of the schema, run by :mod:`mailtwist.store.upgrade`."""
