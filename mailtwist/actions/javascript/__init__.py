"""JavaScript expressions, evaluated in processes of their own that can be killed.

:mod:`.script` is the reactor's side, :mod:`.child` the program of such a process. Nothing
here imports the engine: only the child does.
"""

from mailtwist.actions.javascript.script import Allowance, Script

__all__ = ["Allowance", "Script"]
