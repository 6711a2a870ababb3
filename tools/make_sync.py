"""Generates every blocking store, ``store.py``, from the asynchronous ``async_store.py`` in the same folder.

The keywords ``async`` and ``await`` go, and names lose their ``Async`` (``AsyncIterator``, ``run_async``), in the code
and in its docstrings; ruff then orders imports and formats. ``python tools/make_sync.py`` writes; ``--check`` fails
where a file differs from what would be written. Folders of another distribution are named as arguments.
"""

from __future__ import annotations

import argparse
import io
import re
import subprocess
import sys
import tokenize
from pathlib import Path

ROOT = Path(__file__).parent.parent
HEADER = "# Generated from async_store.py by tools/make_sync.py; edit that file and run it.\n"

# in names, and in the text of strings and comments
_RULES = [
    (re.compile(r"\ban (``|:class:`~?[\w.]*)?(?=Async[A-Z])"), r"a \1"),
    (re.compile(r"\bAn (``|:class:`~?[\w.]*)?(?=Async[A-Z])"), r"A \1"),
    (re.compile(r"(?<![a-z])Async(?=[A-Z])|(?<=[a-z])Async(?=[A-Z]|\b)"), ""),
    (re.compile(r"(?<=\w)_async\b"), ""),
    (re.compile(r"\b__a(enter|exit|iter|next)__"), r"__\1__"),
]
_WORDS = re.compile(r"\b(?:async|await) (?=[\w(\[])")


def to_sync(source: str) -> str:
    """The blocking form of an asynchronous module, not formatted yet."""
    lines = source.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    parts, done = [], 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        begin, end = (starts[row - 1] + column for row, column in (token.start, token.end))
        if begin < done or token.type not in (tokenize.NAME, tokenize.STRING, tokenize.COMMENT, *_ASYNC):
            continue
        parts.append(source[done:begin])
        done = end
        if token.string in ("async", "await"):
            done += len(source[end:]) - len(source[end:].lstrip(" "))
            continue
        text = token.string
        if token.type != tokenize.NAME:
            text = _WORDS.sub("", text)
        for pattern, replacement in _RULES:
            text = pattern.sub(replacement, text)
        parts.append(text)
    return HEADER + "".join([*parts, source[done:]])


# tokens of their own before Python 3.12
_ASYNC = tuple(getattr(tokenize, name) for name in ("ASYNC", "AWAIT") if hasattr(tokenize, name))


def formatted(source: str, path: Path) -> str:
    """The module with its imports in order, as ``ruff format`` leaves it."""
    for command in (["check", "--select", "I,UP028", "--fix", "--unsafe-fixes", "--quiet"], ["format", "--quiet"]):
        arguments = [sys.executable, "-m", "ruff", *command, "--stdin-filename", str(path), "-"]
        source = subprocess.run(arguments, input=source, capture_output=True, text=True, check=True).stdout
    return source


def main() -> int:
    """0, or 1 where ``--check`` found a file that differs."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a file would change")
    parser.add_argument("folders", nargs="*", type=Path, help="folders with an async_store.py; default: all of ours")
    arguments = parser.parse_args()
    check, stale = arguments.check, []
    named = [folder / "async_store.py" for folder in arguments.folders]
    for path in named or sorted((ROOT / "muvera_adapters").glob("*/async_store.py")):
        target = path.with_name("store.py")
        wanted = formatted(to_sync(path.read_text(encoding="utf-8")), target)
        if target.exists() and target.read_text(encoding="utf-8") == wanted:
            continue
        stale.append(target)
        if not check:
            target.write_text(wanted, encoding="utf-8")
    for target in stale:
        print(f"{target} " + ("is not what tools/make_sync.py generates" if check else "written"))
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
