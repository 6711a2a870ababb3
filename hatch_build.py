"""Builds the README of the distribution, whose relative links lead nowhere on PyPI.

Here they lead to the tagged version in ``project.urls.Repository`` of pyproject.toml. Without one they become text.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_IMAGE = re.compile(r"!\[([^\]]*)\]\((?!https?:)([^)\s]+)\)")
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?:|#)([^)\s]+)\)")


def rendered(text: str, repository: str | None, version: str) -> str:
    """The README with absolute links, or with text in their place where there is no repository's address."""
    if repository is None:
        return _LINK.sub(r"\1", _IMAGE.sub(r"*\1.*", text))
    base = repository.rstrip("/")
    text = _IMAGE.sub(rf"![\1]({base}/raw/v{version}/\2)", text)
    return _LINK.sub(rf"[\1]({base}/blob/v{version}/\2)", text)


class PyPIReadme(MetadataHookInterface):  # type: ignore[misc]
    """Sets the distribution's readme."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Reads README.md beside pyproject.toml."""
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        repository = metadata.get("urls", {}).get("Repository")
        metadata["readme"] = {
            "content-type": "text/markdown",
            "text": rendered(text, repository, metadata["version"]),
        }
