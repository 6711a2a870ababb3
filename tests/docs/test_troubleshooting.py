"""docs/troubleshooting.md has every error and warning of the packages, and quotes messages that they have."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()
TREES = [
    ast.parse(file.read_text())
    for package in ("muvera_core", "muvera_adapters")
    for file in sorted((ROOT / package).rglob("*.py"))
    if "testing" not in file.parts
]


def classes():
    """Names of the errors and warnings that reach a user."""
    bases = {
        node.name: {base.id for base in node.bases if isinstance(base, ast.Name)}
        for tree in TREES
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }
    found = {"MuveraError", "InvalidTokens", "UserWarning"}
    while more := {name for name, of in bases.items() if of & found} - found:
        found |= more
    return {name for name in found & set(bases) if not name.startswith("_")}


def texts():
    """Texts of the packages, with "..." for what is put into them."""
    for tree in TREES:
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
            elif isinstance(node, ast.JoinedStr):
                yield "".join(part.value if isinstance(part, ast.Constant) else "..." for part in node.values)


def test_every_error_has_its_section():
    found = classes()
    assert {"MuveraError", "WriteInterrupted", "SourceChanged", "MissingFDEs"} <= found
    assert sorted(re.findall(r"^### `(\w+)`$", PAGE, re.MULTILINE)) == sorted(found)


def test_quoted_messages_are_those_of_the_packages():
    errors = PAGE.split("\n## Errors\n")[1]
    quoted = re.findall(r"^\| `(.+?)` \|", errors, re.MULTILINE)
    assert len(quoted) > 40
    there = "\n".join(texts())
    pattern = {message: ".*?".join(map(re.escape, filter(None, message.split("...")))) for message in quoted}
    assert not [message for message, parts in pattern.items() if not re.search(parts, there)]
