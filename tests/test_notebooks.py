"""The notebooks of the documentation run from top to bottom, and show what they promise."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).resolve().parents[1] / "docs/notebooks"


@pytest.fixture(scope="module")
def shown():
    notebook = nbformat.read(NOTEBOOKS / "first_replay.ipynb", as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": NOTEBOOKS}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    return ["".join(output.data.get("text/html", output.data.get("text/plain"))) for output in outputs
            if "data" in output]  # fmt: skip


def test_what_the_notebook_evaluates_shows_itself(shown):
    trace, matrix, fabric, run, explanation, gpus, saved, comparison = shown
    assert "<td>2,880</td>" in trace  # rows of writes
    assert "<table" in matrix
    assert "<table" in gpus
    assert fabric.startswith("<svg")
    assert "<td>flag_reads</td>" in run
    assert "the largest share" in explanation
    assert "a monitor saves" in saved
    assert "takes" in comparison


def test_notebooks_are_kept_without_outputs():
    for path in NOTEBOOKS.glob("*.ipynb"):
        notebook = nbformat.read(path, as_version=4)
        assert not any(cell.get("outputs") for cell in notebook.cells), path.name
