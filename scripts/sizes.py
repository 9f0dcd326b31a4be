"""Report modules and functions that have grown too long, and fail on those beyond the limit.

One idea a module, a function on a screen. ``scripts/sizes.txt`` lists the
exceptions, each with its reason: ``path[:function]  lines  reason``.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODULE_SOFT, MODULE_HARD = 300, 500
FUNCTION_SOFT, FUNCTION_HARD = 30, 60


def measured() -> Iterator[tuple[str, int, int, int]]:
    """(name, lines, soft limit, hard limit) of every module and function."""
    for path in sorted((ROOT / "mailtwist").rglob("*.py")):
        name, text = str(path.relative_to(ROOT)), path.read_text()
        yield name, text.count("\n"), MODULE_SOFT, MODULE_HARD
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                yield f"{name}:{node.name}", lines, FUNCTION_SOFT, FUNCTION_HARD


def exceptions() -> dict[str, int]:
    """The longest that each listed name may be."""
    allowed = {}
    for line in (ROOT / "scripts" / "sizes.txt").read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            name, lines, reason = line.split(None, 2)
            assert reason, name
            allowed[name] = int(lines)
    return allowed


def main() -> int:
    allowed = exceptions()
    everything = list(measured())
    names = {name for name, *_ in everything}
    over_soft, failures = (
        0,
        [f"{name}: is gone, remove its exception" for name in allowed.keys() - names],
    )
    for name, lines, soft, hard in everything:
        over_soft += lines > soft
        if lines > allowed.get(name, hard):
            failures.append(f"{name}: {lines} lines, at most {allowed.get(name, hard)}")
        elif "-v" in sys.argv and lines > soft:
            print(f"{name}: {lines} lines")
    modules = [lines for name, lines, *_ in everything if ":" not in name]
    functions = sorted(lines for name, lines, *_ in everything if ":" in name)
    print(
        f"{len(modules)} modules, {sum(modules)} lines; {len(functions)} functions, "
        f"median {functions[len(functions) // 2]}; {over_soft} over the soft limit (-v lists them)"
    )
    print("\n".join(failures), end="\n" if failures else "")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
