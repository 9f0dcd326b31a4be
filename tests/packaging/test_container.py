"""Dockerfile and compose.yaml, as far as they can be checked without an engine."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from mailtwist.config import load
from mailtwist.config.predecessors import UNUSED_VARIABLES
from tests.e2e.server import tool

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]


def instructions() -> list[tuple[str, str]]:
    """(word, rest) of each, continued lines joined."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE).replace("\\\n", " ")
    pairs = (line.partition(" ") for line in text.splitlines() if line.strip())
    return [(word, " ".join(rest.split())) for word, _, rest in pairs]


def rest_of(word: str) -> list[str]:
    return [rest for each, rest in instructions() if each == word]


def variables() -> dict[str, str]:
    return {
        name: value.strip('"')
        for rest in rest_of("ENV")
        for name, value in re.findall(r'(\w+)=("[^"]*"|\S+)', rest)
    }


def image_ports() -> dict[int, str]:
    """Port -> protocol of what the image listens on."""
    settings = load(None, variables())
    assert {each.host for each in settings.listeners} == {""}
    return {each.port: each.protocol for each in settings.listeners}


@pytest.mark.real
def test_the_linter_has_no_complaint_about_the_dockerfile() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    command = str(hadolint) if hadolint.exists() else tool("hadolint")
    done = subprocess.run(
        [command, "--no-color", str(ROOT / "Dockerfile")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_the_image_is_built_from_this_repository_and_runs_as_nobody() -> None:
    copied = [rest.split()[0] for rest in rest_of("COPY") if not rest.startswith("--from=")]
    allowed = [
        line[1:]
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    ]
    named = {name for rest in rest_of("COPY") if "--from" not in rest for name in rest.split()[:-1]}
    assert copied
    assert named == set(allowed)
    for name in allowed:
        assert (ROOT / name).exists(), name
    assert (ROOT / ".dockerignore").read_text().splitlines()[1] == "*"
    users = rest_of("USER")
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", users[-1])
    assert [word for word, _ in instructions()].index("USER") < [
        word for word, _ in instructions()
    ].index("ENTRYPOINT")


def test_the_image_listens_where_it_says_and_needs_no_privileges() -> None:
    ports = image_ports()
    assert set(ports) == {int(each) for rest in rest_of("EXPOSE") for each in rest.split()}
    assert min(ports) >= 1024
    # The health check asks the plain HTTP listener.
    (health,) = rest_of("HEALTHCHECK")
    (asked,) = re.findall(r"HTTPConnection\('127\.0\.0\.1', (\d+),", health)
    assert ports[int(asked)] == "http"


@pytest.mark.parametrize("said, status", [(b"200 OK", 0), (b"503 no", 1), (b"", 1), (None, 1)])
def test_the_health_check_tells_an_image_that_is_well(said: bytes | None, status: int) -> None:
    """The command itself, and somebody who answers once; None: nobody does."""
    (health,) = rest_of("HEALTHCHECK")
    program = json.loads(health[health.index("[") :])
    assert program[:2] == ["python", "-c"]
    with socket.create_server(("127.0.0.1", 0)) as server:
        text = program[2].replace("6336", str(server.getsockname()[1]))
        if said is None:
            server.close()
        # A proxy is for the world outside.
        environ = {**os.environ, "http_proxy": "http://127.0.0.1:1"}
        checking = subprocess.Popen(
            [sys.executable, "-c", text], env=environ, stderr=subprocess.DEVNULL
        )
        if said is not None:
            server.settimeout(30)
            link, _ = server.accept()
            with link:
                assert link.recv(1000).startswith(b"GET /health HTTP/1.1")
                link.sendall(
                    b"HTTP/1.1 " + said + b"\r\nContent-Length: 0\r\n\r\n" if said else b""
                )
        assert checking.wait(30) == status


def test_the_command_of_the_image_is_one_that_there_is() -> None:
    (entry,), (command,) = rest_of("ENTRYPOINT"), rest_of("CMD")[-1:]
    assert json.loads(entry) == ["mailtwist"]
    from mailtwist.cli.app import COMMANDS

    assert json.loads(command)[0] in COMMANDS
    extras = re.findall(r"'\.\[([\w,]+)\]'", DOCKERFILE)[0].split(",")
    declared = (ROOT / "setup.cfg").read_text()
    assert all(re.search(rf"^{extra} =$", declared, re.MULTILINE) for extra in extras)


# -- compose.yaml ---------------------------------------------------------------------------

# What each service may say; a word of another kind is a slip.
WORDS = {
    "build", "image", "restart", "env_file", "environment", "ports", "volumes", "networks",
    "depends_on", "stop_grace_period", "read_only", "tmpfs", "cap_drop", "cap_add",
    "security_opt", "labels", "healthcheck", "command", "init",
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_a_service_is_whole(name: str) -> None:
    service = SERVICES[name]
    assert set(service) <= WORDS
    assert "build" in service or re.fullmatch(r"[a-z]+:[0-9.]+[a-z-]*", service["image"])
    for each in service.get("volumes", ()):
        source = each.split(":")[0]
        assert source in COMPOSE["volumes"] or source.startswith("./")
    assert set(service["networks"]) <= set(COMPOSE["networks"])
    for other, how in service.get("depends_on", {}).items():
        assert how == {"condition": "service_healthy"}
        assert "healthcheck" in SERVICES[other]
    assert service["restart"] == "unless-stopped"


def test_published_ports_lead_to_listeners_of_their_kind() -> None:
    ports = image_ports()
    usual = {25: "smtp", 587: "submission", 465: "submissions", 993: "imaps", 443: "https"}
    usual |= {80: "http-redirect", 6336: "http"}
    found = {}
    for each in SERVICES["mailtwist"]["ports"]:
        *host, outer, inner = each.split(":")
        found[int(outer)] = ports[int(inner)]
        # What has no TLS is for this machine.
        assert (host == ["127.0.0.1"]) == (ports[int(inner)] == "http")
    assert found == usual


def test_only_the_server_is_reached_from_outside() -> None:
    assert [name for name, each in SERVICES.items() if "ports" in each] == ["mailtwist"]
    assert COMPOSE["networks"]["back"] == {"internal": True}
    for name in ("postgres", "redis"):
        assert SERVICES[name]["networks"] == ["back"]


def test_the_settings_of_the_compose_file_are_settings() -> None:
    environment = SERVICES["mailtwist"]["environment"]
    ours = {name: text for name, text in environment.items() if name.startswith("MAILTWIST_")}
    settings = load(None, {**variables(), **ours})
    assert settings.warnings == () or not any("did you mean" in each for each in settings.warnings)
    assert settings.database_url == "postgresql+psycopg://mailtwist@postgres/mailtwist"
    assert settings.redis_url == "redis://redis:6379/0"
    # No password has a default.
    text = (ROOT / "compose.yaml").read_text()
    assert set(re.findall(r"\$\{POSTGRES_PASSWORD([^}]*)\}", text)) == {
        ":?set POSTGRES_PASSWORD in .env"
    }


def test_what_the_server_leaves_to_the_proxy_is_handed_to_it() -> None:
    labels = " ".join(SERVICES["mailtwist"]["labels"].values())
    handed = {name for name, reason in UNUSED_VARIABLES.items() if "compose.yaml" in reason}
    assert handed == {"TRAEFIK_ENTRYPOINT", "ENABLE_TLS"}
    for name in handed:
        assert f"${{{name}:-" in labels
