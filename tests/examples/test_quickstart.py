"""The example notebook runs from its first cell to its last, and its results show themselves."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from notebooks import code_cells, run_cell
from places import EXAMPLES

NOTEBOOK = EXAMPLES / "quickstart.ipynb"
PICTURES = ("found", "predictions", "predictions[0]  # one picture and its depth map", "calibrated")


def test_the_notebook_is_stripped() -> None:
    text = NOTEBOOK.read_text(encoding="utf-8")
    notebook = json.loads(text)
    assert notebook["nbformat"] == 4
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    assert not re.search(r"/home/|/Users/|/work/|[A-Z]:\\", text)


@pytest.mark.slow
def test_every_cell_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As plain Python, in order and in one namespace; what a cell displays is asked for its HTML."""
    (tmp_path / "examples").symlink_to(EXAMPLES)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    drawn = []
    for source in code_cells(NOTEBOOK):
        shown = run_cell(source, names)
        if shown is None or isinstance(shown, str):
            continue
        html = shown._repr_html_()
        assert "<table>" in html and "://" not in html, source
        assert "\n" not in repr(shown) and len(repr(shown)) < 400, repr(shown)
        if "data:image/png;base64," in html:
            drawn.append(source.splitlines()[-1])
    assert tuple(drawn) == PICTURES
    printed = capsys.readouterr().out
    assert "precison: unknown option; did you mean precision?" in printed
    assert "did you mean 'trt'?" in printed and "times as fast" in printed
