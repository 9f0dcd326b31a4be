"""Write the files that are made from the code: python scripts/generate.py [--check]."""

from __future__ import annotations

import sys
from pathlib import Path

from mailtwist.config import documents
from mailtwist.http import documents as tables
from mailtwist.smtp import documents as extensions

ROOT = Path(__file__).resolve().parent.parent
GENERATED = {
    "etc/mailtwist.yaml": documents.sample,
    "docs/configuration.md": documents.page,
    "docs/tables.md": tables.page,
    "docs/smtp.md": extensions.page,
}


def main(arguments: list[str]) -> int:
    stale = 0
    for name, make in GENERATED.items():
        path, text = ROOT / name, make()
        if path.exists() and path.read_text() == text:
            continue
        if "--check" in arguments:
            print(f"{name} differs from the code: run scripts/fix")
            stale = 1
        else:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
            print(f"wrote {name}")
    return stale


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
