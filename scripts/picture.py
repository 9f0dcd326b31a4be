"""Make the picture of the README: run a sandbox, type commands, draw what is seen.

    .venv/bin/python scripts/picture.py

Everything in it has happened; only the ports are those of the quick start.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "session.svg"
PORTS = {"smtp": "2525", "imaps": "2993", "http": "6336"}
WIDTH = 96

SEND = """\
curl -sS http://127.0.0.1:6336/send -d '{
  "to": "ann@shop.example", "subject": "Your code",
  "text": "It is 482913, or https://shop.example/go?t=5f2",
  "html": "<p>It is <b>482913</b>, or <a href=https://shop.example/go?t=5f2>this way</a></p>"}'"""
WAIT = """\
curl -sS -H "X-API-KEY: $KEY" 'http://127.0.0.1:6336/emails/ann/wait?subject=code' |
    jq -c '{subject, codes, links}'"""
SMTP = """\
printf 'Subject: hello\\r\\n\\r\\nHello!\\r\\n' | curl -sS smtp://127.0.0.1:2525 \\
    --mail-from you@example.com --mail-rcpt $DEMO -T -"""
IMAP = """\
curl -sSk --user $DEMO:$PASSWORD imaps://127.0.0.1:2993/INBOX \\
    -X 'FETCH 1:* (FLAGS RFC822.SIZE)'"""


class Session:
    """A shell beside a sandbox, on paper."""

    def __init__(self, folder: str, announced: dict[str, object]) -> None:
        self._folder = folder
        rows: list[dict[str, object]] = announced["listeners"]  # type: ignore[assignment]
        self._ports = {PORTS[str(row["protocol"])]: str(row["port"]) for row in rows}
        account: dict[str, str] = announced["account"]  # type: ignore[assignment]
        self._variables = {
            "KEY": str(announced["inbox_key"]),
            "DEMO": account["address"],
            "PASSWORD": account["password"],
            "MAILTWIST_DATA_DIR": f"{folder}/var",
        }
        self.console = Console(record=True, width=WIDTH, file=open(os.devnull, "w"))  # noqa: SIM115

    def type(self, command: str) -> None:
        """Run a command and draw it, with what it says."""
        self.console.print(Text.assemble(("$ ", "bold green"), (command, "bold")))
        real = self._with_ports(command)
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        done = subprocess.run(
            ["sh", "-ec", real],
            cwd=self._folder,
            env={**os.environ, **self._variables, "PATH": path},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        said = done.stdout
        for shown, port in self._ports.items():
            said = said.replace(f":{port}", f":{shown}").replace(f" {port} ", f" {shown} ")
        for line in said.splitlines():
            self.console.print(Text(line.rstrip()))
        self.console.print()

    def _with_ports(self, text: str) -> str:
        return re.sub(r"(?<=127\.0\.0\.1:)\d{4}", lambda found: self._ports[found[0]], text)


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        environ = {name: value for name, value in os.environ.items() if "MAILTWIST" not in name}
        environ["MAILTWIST_LISTENERS"] = ",".join(f"{name}=127.0.0.1:0" for name in PORTS)
        server = subprocess.Popen(
            [str(Path(sys.executable).with_name("mailtwist")), "--data-dir", f"{folder}/var",
             "dev", "--json"],
            cwd=folder,
            env=environ,
            stdout=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        try:
            assert server.stdout is not None
            announced = json.loads(next(line for line in server.stdout if line.startswith("{")))
            session = Session(folder, announced)
            for command in (SEND, WAIT, SMTP, IMAP):
                session.type(command)
            svg = session.console.export_svg(title="mailtwist dev")
        finally:
            server.send_signal(signal.SIGTERM)
            server.communicate(timeout=30)
    # Fonts of other sites are fetched by nobody who reads a README.
    svg = re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)
    PICTURE.write_text("\n".join(line.rstrip() for line in svg.splitlines() if line.strip()) + "\n")
    print(f"wrote {PICTURE.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
