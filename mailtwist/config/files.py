"""Reading a configuration file, YAML or TOML by its suffix, into plain values."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mailtwist.errors import ConfigError

# A thousand times the sample; a file that is larger was named by mistake.
MAX_OCTETS = 4 << 20


def read_file(path: Path) -> Mapping[str, Any]:
    """The file's keys and values. Raises ``ConfigError`` with the file and line of a fault."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_OCTETS + 1)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from None
    if len(data) > MAX_OCTETS:
        raise ConfigError(f"{path}: is larger than {MAX_OCTETS >> 20} MiB")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is no UTF-8 at octet {error.start}") from None
    readers = {".yaml": _yaml, ".yml": _yaml, ".toml": _toml}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise ConfigError(f"{path}: the suffix must be .yaml, .yml or .toml")
    found = reader(text, path)
    if found is None:
        return {}
    if not isinstance(found, Mapping):
        raise ConfigError(f"{path}: must hold keys and values")
    return found


def _toml(text: str, path: Path) -> object:
    import tomllib

    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: {error}") from None


def _yaml(text: str, path: Path) -> object:
    import yaml

    class Loader(yaml.SafeLoader):
        """The safe loader, which moreover refuses a key given twice."""

    def mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            problem = ""
            if not isinstance(key, yaml.ScalarNode):
                problem = "a list or a group is no key"
            elif key.value in seen:
                problem = f"the key {key.value!r} stands here a second time"
            if problem:
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value)
        loader.flatten_mapping(node)
        return loader.construct_mapping(node, deep=True)

    Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    try:
        return yaml.load(text, Loader)  # noqa: S506  (it is a SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        raise ConfigError(f"{where}: {error.problem}") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ConfigError(f"{path}: {' '.join(str(error).split())}") from None
