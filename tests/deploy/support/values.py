"""A chart's values.yaml as people read it: every key with its comment."""

import json
import re
from pathlib import Path

import yaml

_KEY = re.compile(r"( *)([A-Za-z][A-Za-z0-9]*):( .*)?$")


def documented(file: Path) -> dict[str, tuple[str, object]]:
    """Key → (comment, default). A mapping counts as a whole where none of its keys has a comment of its own."""
    comments: dict[str, str] = {}
    path: list[tuple[int, str]] = []
    pending: list[str] = []
    for line in file.read_text().splitlines():
        if line.strip().startswith("# "):
            pending.append(line.strip()[2:])
            continue
        if found := _KEY.match(line):
            indent = len(found[1])
            path = [p for p in path if p[0] < indent] + [(indent, found[2])]
            comments[".".join(p[1] for p in path)] = " ".join(pending)
        pending = []
    rows: dict[str, tuple[str, object]] = {}
    _walk(yaml.safe_load(file.read_text()), "", comments, rows)
    return rows


def _walk(tree: dict, above: str, comments: dict[str, str], rows: dict) -> None:
    for name, value in tree.items():
        key = f"{above}{name}"
        inner = isinstance(value, dict) and any(comments.get(f"{key}.{n}") for n in value)
        if inner:
            _walk(value, f"{key}.", comments, rows)
        elif isinstance(value, dict) and value and not comments.get(key):
            _walk(value, f"{key}.", comments, rows)
        else:
            rows[key] = (comments.get(key, ""), value)


def table(file: Path) -> str:
    """The values as a table for a README."""
    lines = ["| value | what it is | default |", "|---|---|---|"]
    for key, (comment, default) in documented(file).items():
        shown = json.dumps(default, ensure_ascii=False)
        lines.append(f"| `{key}` | {comment.replace('|', chr(92) + '|')} | `{shown}` |")
    return "\n".join(lines)
