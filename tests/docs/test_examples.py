"""Every shell and Python example of the pages, run in order beside a sandbox."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cli.sandbox import Sandbox, announced_by

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROGRAMS = ("swaks", "curl")
STANDARD_PORTS = {
    "smtp": 2525,
    "submission": 2587,
    "submissions": 2465,
    "imap": 2143,
    "imaps": 2993,
    "http": 6336,
}
RUNNERS = {"sh test": ["sh", "-eu"], "python test": [sys.executable]}


@dataclass(frozen=True)
class Block:
    info: str
    text: str


def blocks(page: Path) -> list[Block]:
    return [Block(info.strip(), text) for info, text in FENCE.findall(page.read_text())]


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


RUNNABLE = [page for page in PAGES if any(block.info in RUNNERS for block in blocks(page))]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_example_is_run_or_says_why_not(page: Path) -> None:
    for block in blocks(page):
        if block.info.split(" ")[0] in {"sh", "python", "bash", "shell", "console"}:
            reason = block.info.partition("no-test")[2]
            assert block.info in RUNNERS or len(reason) > 10, block


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        assert "://" in target or (page.parent / target).exists(), target


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, int]]]:
    """The data folder of one sandbox for all pages, and what stands in for each standard port."""
    listeners = ",".join(f"{protocol}=127.0.0.1:0" for protocol in STANDARD_PORTS)
    data_dir = tmp_path_factory.mktemp("sandbox") / "var"
    running = Sandbox(data_dir, "--json", listeners=listeners)
    try:
        bound = {row["protocol"]: row["port"] for row in announced_by(running)["listeners"]}
        yield data_dir, {str(port): bound[name] for name, port in STANDARD_PORTS.items()}
    finally:
        assert running.stop() == 0


@pytest.fixture
def place(tmp_path: Path, sandbox: tuple[Path, dict[str, int]]) -> Path:
    """A folder that looks like the checkout, with the sandbox's data, to the examples."""
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    for program in ("mailtwist", "twistd", "python"):
        beside = Path(sys.executable).with_name(program)
        if not beside.exists():
            pytest.skip(f"{program} is not installed beside this Python")
        # Not a link: a linked python would look for its packages here.
        script = tmp_path / ".venv" / "bin" / program
        script.write_text(f'#!/bin/sh\nexec "{beside}" "$@"\n')
        script.chmod(0o755)
    shutil.copy(ROOT / "README.md", tmp_path)
    (tmp_path / "var").symlink_to(sandbox[0])
    return tmp_path


def need_programs(page: Path) -> None:
    texts = "".join(block.text for block in blocks(page) if block.info in RUNNERS)
    for program in PROGRAMS:
        if program in texts and shutil.which(program) is None:
            if os.environ.get("MAILTWIST_REQUIRE_REAL"):
                pytest.fail(f"{program} is required")
            pytest.skip(f"{program} is not installed")


@pytest.mark.reactor
@pytest.mark.real
@pytest.mark.parametrize("page", RUNNABLE, ids=name)
def test_the_examples_of_a_page_work(
    page: Path, place: Path, sandbox: tuple[Path, dict[str, int]]
) -> None:
    need_programs(page)
    ports = sandbox[1]
    environ = {key: value for key, value in os.environ.items() if not key.startswith("MAILTWIST_")}
    environ["PATH"] = f"{place}/.venv/bin:{environ['PATH']}"
    output = ""
    for block in blocks(page):
        if block.info == "text output":
            for line in block.text.splitlines():
                assert " ".join(line.split()) in " ".join(output.split()), line
        if block.info not in RUNNERS:
            continue
        text = re.sub(r"\b\d{4}\b", lambda found: str(ports.get(found[0], found[0])), block.text)
        done = subprocess.run(
            RUNNERS[block.info],
            input=text,
            cwd=place,
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        output = done.stdout
        assert done.returncode == 0, f"{text}\n{output}"
