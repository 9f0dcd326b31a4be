"""Install pip into this environment, where Debian's ensurepip is missing."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path
from urllib.parse import urljoin

INDEX = "https://pypi.org/pypi/pip/json"


def main() -> None:
    with urllib.request.urlopen(INDEX, timeout=60) as answer:
        files = json.load(answer)["urls"]
    wheel = next(each for each in files if each["packagetype"] == "bdist_wheel")
    # A mirror may give the place relative to its own.
    with urllib.request.urlopen(urljoin(INDEX, wheel["url"]), timeout=60) as answer:
        data = answer.read()
    if hashlib.sha256(data).hexdigest() != wheel["digests"]["sha256"]:
        sys.exit("the pip that came is not the pip that was announced")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / wheel["filename"]
        path.write_bytes(data)
        # A wheel is a zip file, and pip runs from inside its own.
        command = [sys.executable, f"{path}/pip", "install", "-q", "--no-index", str(path)]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
