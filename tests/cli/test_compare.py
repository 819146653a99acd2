"""`morvit-deploy compare`: the table, the files it writes, what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

from commands import answer, refused, run
from comparisons import conv_graph

QUICK = ("--threads", "1", "--runs", "3", "--blocks", "2", "--warmup", "0", "--starts", "1", "--batches", "1")


def test_tables_file_and_page(tiny_bundle: Path, tmp_path: Path) -> None:
    graph = conv_graph(tmp_path / "other.onnx")
    out, page = tmp_path / "c.json", tmp_path / "c.html"
    ended = run(
        "compare", tiny_bundle, "--baselines", f"{graph},{graph}", "-o", out, "--report", page, *QUICK
    )
    assert ended.exit_code == 0, ended.output
    for title in ("Speed", "Work and memory", "Conditions", "morvit-deploy "):
        assert title in ended.stdout
    assert "measured on synthetic pictures" in ended.stderr
    found = json.loads(out.read_text())
    assert found["format"] == "morvit-compare/1"
    assert [row["name"] for row in found["rows"]] == [str(tiny_bundle), str(graph)]
    text = page.read_text()
    assert text.startswith("<!-- morvit-deploy -->\n<!doctype html>") and "<svg class=chart" in text
    for taken, option in ((out, "-o"), (page, "--report")):
        before = taken.read_bytes()
        assert "--force" in refused("compare", tiny_bundle, option, taken, *QUICK)
        assert taken.read_bytes() == before
    assert run("compare", tiny_bundle, "--report", page, "--force", *QUICK).exit_code == 0
    assert page.read_text() != text


def test_json_is_one_document(tiny_bundle: Path) -> None:
    found = answer("compare", tiny_bundle, *QUICK)
    assert found["ranks"] in ({}, {str(tiny_bundle): "1"}) and found["left_out"] == []


def test_another_file_is_kept(tiny_bundle: Path, tmp_path: Path) -> None:
    notes, page = tmp_path / "notes.json", tmp_path / "mine.html"
    notes.write_text("{}")
    page.write_text("<p>mine")
    assert "holds something else" in refused("compare", tiny_bundle, "-o", notes, "--force", *QUICK)
    assert "holds something else" in refused("compare", tiny_bundle, "--report", page, "--force", *QUICK)
    assert (notes.read_text(), page.read_text()) == ("{}", "<p>mine")


def test_bad_input(tiny_bundle: Path, tmp_path: Path, inside: Path) -> None:
    assert "got a report that ends in '.pdf', expected .html or .md" in refused(
        "compare", tiny_bundle, "--report", tmp_path / "r.pdf"
    )
    assert "no.onnx is no file; expected an ONNX graph" in refused(
        "compare", tiny_bundle, "--baselines", "no.onnx"
    )
    assert "give the one that the first bundle was made from" in refused(
        "compare", tiny_bundle, "--with", "eager"
    )
    assert "no BUNDLE given" in refused("compare")
    for batches, message in (
        ("2,x", "--batches: got '2,x', expected"),
        ("0", "--batches: got '0'"),
        ("4096", "1 to 1024"),
    ):
        assert message in refused("compare", tiny_bundle, "--batches", batches)
    assert "--batches is for bundles and baselines" in refused(
        "compare", tiny_bundle, "--targets", "onnx", "--batches", "2"
    )
