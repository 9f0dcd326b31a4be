"""One module for each command of the table in :mod:`mailtwist.cli.app`."""
