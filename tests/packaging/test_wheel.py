"""The wheel: what is in it, and that a clean environment with it has the plug-in."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NEEDED = ("mailtwist", "twisted", "setup.cfg", "pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that nothing is left in the checkout."""
    source = tmp_path_factory.mktemp("source")
    ignore = shutil.ignore_patterns("__pycache__", "dropin.cache")
    for name in NEEDED:
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, source / name, ignore=ignore)
        else:
            shutil.copy(path, source / name)
    built = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(built)]
    done = subprocess.run(
        [*command, str(source)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = built.glob("mailtwist-*.whl")
    return path


def test_the_wheel_claims_one_file_of_twisted(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    # An __init__.py here would replace Twisted's own.
    assert [name for name in names if name.startswith("twisted")] == [
        "twisted/plugins/mailtwist_plugin.py"
    ]
    assert {name.partition("/")[0] for name in names} - {"mailtwist", "twisted"} == {
        next(name.partition("/")[0] for name in names if ".dist-info/" in name)
    }


def test_the_wheel_has_every_module_and_data_file(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    ours = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "mailtwist").rglob("*")
        if path.suffix in {".py", ".typed", ".mako"}
    }
    assert ours - names == set()
    assert "mailtwist/py.typed" in names


@pytest.fixture(scope="module")
def clean(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that has our dependencies, and of mailtwist the wheel alone."""
    folder = tmp_path_factory.mktemp("clean")
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    site = sysconfig.get_path("purelib", vars={"base": str(folder)})
    # A plain folder of sys.path: .pth files in it, such as our checkout's, are not read.
    Path(site, "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q"]
    options = ["--no-deps", "--no-index", "--ignore-installed", "--root-user-action=ignore"]
    subprocess.run([*pip, *options, str(wheel)], check=True, timeout=300)
    return python


def run(python: Path, *arguments: str) -> str:
    environ = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MAILTWIST_", "PYTHON"))
    }
    done = subprocess.run(
        [str(python), *arguments],
        cwd=python.parent,
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.mission("GEN-01")
def test_a_clean_environment_shows_the_plug_in(clean: Path) -> None:
    twistd = "import sys; from twisted.scripts.twistd import run; sys.argv[0] = 'twistd'; run()"
    listed = run(clean, "-c", twistd, "--help")
    assert "    mailtwist  " in listed
    options = run(clean, "-c", twistd, "-n", "mailtwist", "--help")
    for option in ("--config", "--data-dir", "--database-url", "-c, "):
        assert option in options


def test_the_console_script_of_the_wheel_makes_a_store(clean: Path, tmp_path: Path) -> None:
    script = clean.with_name("mailtwist")
    where = run(clean, "-c", "import mailtwist; print(mailtwist.__file__)")
    assert str(clean.parent.parent) in where
    assert "mailtwist, version" in run(clean, str(script), "--version")
    assert "database" in run(clean, str(script), "--data-dir", str(tmp_path / "d"), "init")
    assert (tmp_path / "d" / "mailtwist.db").exists()


def test_the_checkout_shows_the_plug_in_from_any_folder(tmp_path: Path) -> None:
    twistd = Path(sys.executable).with_name("twistd")
    if not (ROOT / ".venv" / "ready").exists() or twistd.parent != ROOT / ".venv" / "bin":
        pytest.skip("this Python is not the one of scripts/venv")
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(twistd), "--help"],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "    mailtwist  " in done.stdout
