"""Compare docs/compatibility.md with the tests: who claims what, and what proves it.

The page has one row for each behaviour of the programs that mailtwist replaces.
A test proves rows with ``@pytest.mark.mission("DAP-095", ...)``. The check fails
when a row says ``done`` or ``partial`` and no test is marked, when a test is
marked and its row says ``planned``, and when a mark names no row.

``--write`` brings the page in line: marked rows become ``done``, or ``partial`` when
``PARTIAL`` says what is missing, and unmarked ones ``planned``.
``-v`` prints the tests of each row.
"""

from __future__ import annotations

import contextlib
import io
import re
import sys
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "compatibility.md"
ROW = re.compile(r"\| ([A-Z]{3}-\d+) \| (.*?) \| (done|partial|planned) \| (.*?) ?\|")
TOTAL = 340

# Rows whose tests prove a part, and what waits for which part of the server.
PARTIAL: dict[str, str] = {}


@dataclass(frozen=True)
class Row:
    name: str
    feature: str
    state: str
    why: str

    def __str__(self) -> str:
        return f"| {self.name} | {self.feature} | {self.state} | {self.why} |".replace("  |", " |")

    def settled(self, is_marked: bool) -> Row:
        """The row as the marks have it."""
        if not is_marked:
            return self if self.state == "planned" else replace(self, state="planned", why="")
        if self.name in PARTIAL:
            return replace(self, state="partial", why=PARTIAL[self.name])
        return replace(self, state="done", why="")


class Marks:
    """Collects the marks of all tests without running them."""

    def __init__(self) -> None:
        self.tests: dict[str, set[str]] = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            for mark in item.iter_markers("mission"):
                for name in mark.args:
                    self.tests.setdefault(name, set()).add(item.nodeid)


def collected() -> dict[str, set[str]]:
    marks, output = Marks(), io.StringIO()
    with contextlib.redirect_stdout(output):
        arguments = ["--collect-only", "-q", "-p", "no:cacheprovider", str(ROOT / "tests")]
        status = pytest.main(arguments, plugins=[marks])
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        print(output.getvalue())
        sys.exit("the tests cannot be collected")
    return marks.tests


def read_page() -> tuple[list[str], dict[str, Row]]:
    lines = PAGE.read_text().splitlines()
    found = [Row(*match.groups()) for line in lines if (match := ROW.match(line))]
    rows = {row.name: row for row in found}
    assert len(found) == len(rows) == TOTAL, f"{len(found)} rows, {len(rows)} names, not {TOTAL}"
    return lines, rows


def faults(rows: dict[str, Row], marked: dict[str, set[str]]) -> list[str]:
    found = [f"{name}: a test is marked with it, no row has it" for name in marked.keys() - rows]
    for name, row in rows.items():
        if row.state == "planned" and name in marked:
            found.append(f"{name}: is planned and {min(marked[name])} proves it")
        if row.state != "planned" and name not in marked:
            found.append(f"{name}: is {row.state} and no test proves it")
        if row.state != "planned" and (row.state == "partial") != (name in PARTIAL):
            found.append(f"{name}: is {row.state}, which PARTIAL in this script contradicts")
    return sorted(found)


def write_page(lines: list[str], rows: dict[str, Row], marked: dict[str, set[str]]) -> None:
    new = []
    for line in lines:
        match = ROW.match(line)
        row = rows[match[1]].settled(match[1] in marked) if match else None
        new.append(str(row) if row else line)
    text = "\n".join(new) + "\n"
    if text != PAGE.read_text():
        PAGE.write_text(text)
        print("wrote docs/compatibility.md")


def main() -> int:
    marked = collected()
    lines, rows = read_page()
    if "--write" in sys.argv:
        write_page(lines, rows, marked)
        lines, rows = read_page()
    if "-v" in sys.argv:
        for name in sorted(marked):
            print(name, *sorted(marked[name]), sep="\n  ")
    found = faults(rows, marked)
    states = Counter(row.state for row in rows.values())
    print(", ".join(f"{states[state]} {state}" for state in ("done", "partial", "planned")))
    print("\n".join(found), end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
