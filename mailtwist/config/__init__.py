"""The configuration: one declaration for each setting, and everything made from it.

``load`` reads the file, the environment and the command line into frozen
:class:`Settings`. To add a setting, add one field to a section in
:mod:`mailtwist.config.settings`; ``scripts/fix`` writes it into the sample file and
the documentation.
"""

from mailtwist.config.listeners import Listener
from mailtwist.config.load import InvalidConfiguration, load
from mailtwist.config.settings import Settings

__all__ = ["InvalidConfiguration", "Listener", "Settings", "load"]
