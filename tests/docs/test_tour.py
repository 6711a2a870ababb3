"""examples/tour.ipynb runs from top to bottom, and draws its plots."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[2] / "examples" / "tour.ipynb"


@pytest.mark.filterwarnings("ignore")  # of the kernel's own packages
def test_tour_runs(tmp_path, monkeypatch):
    nbformat = pytest.importorskip("nbformat", reason="pip install 'muvera-adapters[dev]'")
    from nbclient import NotebookClient

    paths = [str(NOTEBOOK.parents[1]), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    plots = [output for output in outputs if "image/png" in output.get("data", {})]
    printed = "".join(
        output["text"] for output in outputs if output.output_type == "stream" and output.name == "stdout"
    )
    assert len(plots) == 5
    assert "json.load" in printed
    (recall,) = (float(line.split(":")[1]) for line in printed.splitlines() if line.startswith(" 200 candidates"))
    assert recall > 0.97
