"""Tests, benchmarks and stress programs stand alone: what they share is in servers and muvera_adapters.testing."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
APART = ["tests", "integration_tests", "ecosystem_tests", "benchmarks", "stress"]


def imported(tree):
    """First names of everything that a module imports, wherever in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            yield node.module.split(".")[0]


@pytest.mark.parametrize("package", [*APART, "servers", "muvera_adapters", "muvera_core"])
def test_no_package_imports_another_ones_tests(package):
    modules = sorted((ROOT / package).rglob("*.py"))
    assert modules
    others = set(APART) - {package}
    wrong = {
        str(module.relative_to(ROOT)): names
        for module in modules
        if (names := others.intersection(imported(ast.parse(module.read_text(encoding="utf-8")))))
    }
    assert wrong == {}


@pytest.mark.parametrize("code", ["import tests.drawn", "def f():\n    from tests import drawn"])
def test_imports_are_seen_wherever_they_are(code):
    assert list(imported(ast.parse(code))) == ["tests"]
