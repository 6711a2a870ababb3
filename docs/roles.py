"""Docstrings as Markdown: cross-references in Sphinx's way, and comments that document attributes."""

from __future__ import annotations

import re
from typing import Any

from griffe import Attribute, Docstring, Extension, GriffeLoader, Module, NameResolutionError, Object

# :class:`~a.b.Name`, :meth:`name`, :func:`.module.name`
_ROLE = re.compile(r":(?:attr|class|data|exc|func|meth|mod|obj):`(~?)([\w.]+)`")
# the end of a paragraph before a block of code
_LITERAL = re.compile(r"(?<=\S)::$", re.MULTILINE)
# a comparison at the beginning of a line, which Markdown takes for a quotation
_COMPARISON = re.compile(r"^( *)>(?!>>)", re.MULTILINE)
_COMMENT = re.compile(r"\s*#: ?(.*)")


class Roles(Extension):
    """Rewrites all docstrings of a package, before they are parsed."""

    def on_package(self, *, pkg: Module, loader: GriffeLoader, **_: Any) -> None:
        """A package was loaded."""
        _rewrite(pkg)


def _rewrite(scope: Object) -> None:
    if isinstance(scope, Attribute) and not scope.docstring:
        _document(scope)
    if scope.docstring:
        text = _ROLE.sub(lambda role: _reference(scope, *role.groups()), scope.docstring.value)
        scope.docstring.value = _COMPARISON.sub(r"\1&gt;", _LITERAL.sub(":", text))
    for member in scope.members.values():
        if isinstance(member, Object):  # not what is only imported there
            _rewrite(member)


def _reference(scope: Object, short: str, name: str) -> str:
    """A link where the reference has the target, else only the code; autorefs knows when all pages are read."""
    shown = name.rpartition(".")[2] if short else name.removeprefix(".")
    return f'<autoref optional identifier="{_path(scope, name)}"><code>{shown}</code></autoref>'


def _path(scope: Object, name: str) -> str:
    """The whole name of a target that is spelled as it is known in ``scope``."""
    if name.startswith("."):
        package = scope.module if scope.module.is_init_module else scope.module.parent
        return f"{package.path if package else ''}{name}"
    first, dot, rest = name.partition(".")
    try:
        return scope.resolve(first) + dot + rest
    except NameResolutionError:
        return name


def _document(attribute: Attribute) -> None:
    """Takes the comment ``#:`` above an attribute for its docstring."""
    try:
        lines = attribute.lines_collection[attribute.filepath]
    except KeyError:
        return
    found = []
    number = (attribute.lineno or 1) - 1
    while number > 0 and (comment := _COMMENT.fullmatch(lines[number - 1])):
        found.append(comment[1])
        number -= 1
    if found:
        text = "\n".join(reversed(found))
        attribute.docstring = Docstring(text, parent=attribute, parser="google")
