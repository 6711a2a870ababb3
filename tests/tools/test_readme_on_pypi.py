"""The README of a distribution has no link that leads nowhere."""

import re
from pathlib import Path

import pytest

pytest.importorskip("hatchling")
from hatch_build import rendered

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
TARGETS = re.compile(r"\]\(([^)]*)\)")


def test_without_an_address_links_are_text():
    text = rendered(README, None, "1.2.3")
    assert all(target.startswith(("https:", "#")) for target in TARGETS.findall(text))
    assert "](docs/" in README
    assert (
        rendered("![A picture](b.svg), [c `d`](e.md#f), [g](https://h)", None, "1")
        == "*A picture.*, c `d`, [g](https://h)"
    )


def test_with_an_address_they_lead_to_the_released_version():
    text = rendered(README, "https://example.org/us/it/", "1.2.3")
    assert all(target.startswith(("https:", "#")) for target in TARGETS.findall(text))
    assert "](https://example.org/us/it/blob/v1.2.3/docs/qdrant.md" in text
    assert re.search(r"!\[[^\]]*\]\(https://example.org/us/it/raw/v1.2.3/docs/figures/\S+\.svg\)", text)
