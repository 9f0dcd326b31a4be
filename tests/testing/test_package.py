"""The testing package, each way of using it in a process of its own: trial's reactor is here."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.test_examples import FENCE

ROOT = Path(__file__).resolve().parents[2]
CASES = Path(__file__).parent / "cases"
PAGE = ROOT / "docs" / "testing.md"
START_S = 1.5

pytestmark = [pytest.mark.reactor, pytest.mark.real]


def run(folder: Path, *arguments: str) -> str:
    """Run Python in a folder that is also the one for temporary files; what it said."""
    # What is compiled is kept, as it is where a package was installed.
    leaking = ("MAILTWIST", "PYTEST", "PYTHONDONTWRITEBYTECODE")
    clean = {key: value for key, value in os.environ.items() if not key.startswith(leaking)}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**clean, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert list(folder.glob("mailtwist-*")) == [], "a server left its folder"
    return done.stdout


def pytest_in(folder: Path, *arguments: str) -> str:
    options = ("-q", "-W", "error", "-p", "no:schemathesis", "-p", "no:cacheprovider")
    return run(folder, "-m", "pytest", *options, f"--rootdir={folder}", *arguments)


def test_the_server_does_what_it_says(tmp_path: Path) -> None:
    shutil.copy(CASES / "server_cases.py", tmp_path / "test_server.py")
    assert " passed" in pytest_in(tmp_path)


INTERRUPTED = """
import os, signal, sys
from mailtwist.store import fresh
from mailtwist.testing import MailServer

# A shell starts what it puts into the background with SIGINT ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
make = fresh.make

def interrupted(url):
    # In the reactor's thread; the signal reaches the one that waits for it.
    os.kill(os.getpid(), signal.SIGINT)
    make(url)

fresh.make = interrupted
try:
    MailServer().start()
except KeyboardInterrupt:
    print("interrupted")
"""


def test_a_start_that_is_interrupted_leaves_nothing(tmp_path: Path) -> None:
    # The folder is looked at when the process has ended.
    assert run(tmp_path, "-c", INTERRUPTED) == "interrupted\n"


def test_it_works_in_the_reactor_of_trial(tmp_path: Path) -> None:
    shutil.copy(CASES / "trial_cases.py", tmp_path / "test_cases.py")
    (tmp_path / "test_page.py").write_text(_pages()["trial"][0])
    said = run(tmp_path, "-m", "twisted.trial", "test_cases", "test_page")
    assert "PASSED (successes=4)" in said


def test_the_examples_of_the_page_work(tmp_path: Path) -> None:
    pages = _pages()
    (conftest,) = pages["conftest"]
    (tmp_path / "conftest.py").write_text(conftest)
    for n, text in enumerate(pages["pytest"]):
        # What stands outside of functions is run when it is collected.
        (tmp_path / f"test_{n}.py").write_text(text)
    said = pytest_in(tmp_path, "-n", "1")
    wanted = sum(len(re.findall(r"^ *def test_", text, re.M)) for text in pages["pytest"])
    assert wanted == 6
    assert f"{wanted} passed" in said


def _pages() -> dict[str, list[str]]:
    """The blocks of the page, by what runs them."""
    found: dict[str, list[str]] = {}
    for info, text in FENCE.findall(PAGE.read_text()):
        if info.startswith("python"):
            name = "trial" if "under trial" in info else "pytest"
            found.setdefault("conftest" if "conftest.py" in info else name, []).append(text)
    return found


def test_it_starts_at_once_and_ends_with_the_process(tmp_path: Path) -> None:
    program = (
        "import time; began = time.process_time()\n"
        "from mailtwist.testing import MailServer\n"
        "mail = MailServer().start()\n"
        "print(time.process_time() - began)\n"
        # Nobody stops it.
    )
    # One of three: others use the machine as well, and the first one compiles.
    assert any(float(run(tmp_path, "-c", program)) < START_S for _ in range(3))


def test_the_plug_in_costs_a_run_without_mail_nothing(tmp_path: Path) -> None:
    program = (
        "import sys, mailtwist.testing.plugin\n"
        "print(*sorted({'twisted', 'sqlalchemy', 'zope', 'cryptography'} & set(sys.modules)))"
    )
    assert run(tmp_path, "-c", program).split() == []


def test_every_public_name_is_there() -> None:
    from mailtwist import testing

    for name in testing.__all__:
        assert getattr(testing, name).__name__ == name
    with pytest.raises(AttributeError):
        _ = testing.absent
