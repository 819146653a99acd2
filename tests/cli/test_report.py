"""`morvit-deploy report`, and `--report`: one page from a result's file, and nothing in it that a file could run."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from bucket_plans import EXPERT, threshold_ladder
from chromium import browser, find_chromium
from commands import refused, run
from comparisons import comparison, row

from morvit_deploy.cli.shared.pages import with_command
from morvit_deploy.cli.shared.stored import KEY, read_report, stored
from morvit_deploy.report import Table

QUICK = ("--threads", "1", "--runs", "10", "--blocks", "2", "--warmup", "1", "--starts", "1")
ROWS = row("build/b16", 10.0, 10.1, 9.9, kind="bundle"), row("resnet50", 20.0, 20.2, 19.8)
SCRIPT = "<script>alert(1)</script>"


@pytest.fixture
def result(tmp_path: Path) -> Path:
    """A file as `compare -o` writes it."""
    found = comparison(*ROWS)
    path = tmp_path / "result.json"
    path.write_text(json.dumps(found.as_dict() | {KEY: stored(with_command(found.report()))}))
    return path


def edited(result: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    found = json.loads(result.read_text())
    change(found)
    result.write_text(json.dumps(found))
    return result


class Tags(HTMLParser):
    """Elements of a page, and what they refer to."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.references: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.references += [value or "" for name, value in attrs if name in ("href", "src", "xlink:href")]


def test_a_page_beside_the_result_is_one_file(result: Path) -> None:
    ended = run("report", result)
    assert ended.exit_code == 0 and ended.stdout == ""
    assert f"wrote {result.with_suffix('.html')}" in ended.stderr
    page = result.with_suffix(".html").read_text()
    tags = Tags(page)
    assert all(reference.startswith("#") for reference in tags.references), "nothing is loaded"
    assert "script" not in tags.names and "link" not in tags.names
    assert {"svg", "table", "nav"} <= {*tags.names}
    plain = page.replace("\u00a0", " ")
    for words in ("b16 takes 10.0 ms an image", "To repeat it</h2>", "morvit-deploy ", "Conditions</h2>"):
        assert words in plain
    for rule in ("prefers-color-scheme:dark", "max-width:30rem", "@media print"):
        assert rule in page


def test_the_page_is_that_of_the_measurement(result: Path) -> None:
    page = with_command(comparison(*ROWS).report()).html()
    again = read_report(result).html()
    tables = re.compile(r"<table>.*?</table>")
    assert tables.findall(again) == tables.findall(page)
    assert Tags(again).names == Tags(page).names


def test_markdown(result: Path, tmp_path: Path) -> None:
    assert run("report", result, "-o", tmp_path / "r.md").exit_code == 0
    text = (tmp_path / "r.md").read_text()
    assert text.startswith("<!-- morvit-deploy -->\n# Comparison\n\nb16 takes")
    assert "| model | rank |" in text and "<svg" not in text


def test_an_existing_page_is_kept_and_only_ours_is_replaced(result: Path, tmp_path: Path) -> None:
    page, mine = tmp_path / "r.html", tmp_path / "mine.html"
    mine.write_text("<p>mine")
    assert run("report", result, "-o", page).exit_code == 0
    page.write_text(page.read_text() + "older")
    assert "--force" in refused("report", result, "-o", page)
    assert page.read_text().endswith("older")
    assert run("report", result, "-o", page, "--force").exit_code == 0
    assert not page.read_text().endswith("older")
    assert "holds something else" in refused("report", result, "-o", mine, "--force")
    assert mine.read_text() == "<p>mine"


def test_text_of_a_file_is_escaped(result: Path) -> None:
    def change(found: dict[str, Any]) -> None:
        found[KEY]["title"] = found[KEY]["result"] = SCRIPT
        found[KEY]["parts"][0]["rows"][0][0] = SCRIPT
        found[KEY]["picture"]["svg"] = found[KEY]["picture"]["svg"].replace(">b16<", ">&lt;script&gt;<")

    page = read_report(edited(result, change)).html()
    assert "script" not in Tags(page).names and "&lt;script&gt;" in page


@pytest.mark.parametrize(
    "drawing",
    [
        '<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
        '<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>',
        '<svg xmlns="http://www.w3.org/2000/svg"><rect style="background:url(http://x)"/></svg>',
        '<svg xmlns="http://www.w3.org/2000/svg"><rect fill="url(http://x)"/></svg>',
        '<svg xmlns="http://www.w3.org/2000/svg"><rect stroke="u\\72l(http://x)"/></svg>',
        '<svg xmlns="http://www.w3.org/2000/svg"><foreignObject/></svg>',
        '<svg><image href="http://example.org/x.png"/></svg>',
        '<!DOCTYPE svg [<!ENTITY a "b">]><svg xmlns="http://www.w3.org/2000/svg"><text>&a;</text></svg>',
        "<svg",
    ],
    ids=["script", "event", "style", "paint", "hidden paint", "foreign", "image", "entity", "cut off"],
)
def test_a_drawing_that_is_more_than_shapes(result: Path, drawing: str) -> None:
    edited(result, lambda found: found[KEY]["picture"].update(svg=drawing))
    assert "its report is damaged" in refused("report", result)
    assert not result.with_suffix(".html").exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda found: found[KEY].pop("parts"),
        lambda found: found[KEY].update(title=3),
        lambda found: found[KEY].update(parts=[3]),
        lambda found: found[KEY]["parts"][0]["rows"][0].pop(),
        lambda found: found[KEY]["parts"][0].update(numeric=[99]),
        lambda found: found.update({KEY: None}),
    ],
    ids=["no parts", "a number", "no table", "a short row", "no such column", "nothing"],
)
def test_a_damaged_report(result: Path, change: Callable[[dict[str, Any]], object]) -> None:
    edited(result, change)
    assert "its report is damaged" in refused("report", result)


def test_files_that_are_no_results(result: Path, tmp_path: Path) -> None:
    assert "was written by an earlier version" in refused(
        "report", edited(result, lambda found: found.pop(KEY))
    )
    plan = tmp_path / "plan.json"
    plan.write_text('{"format": "morvit-plan/1"}')
    assert "got format 'morvit-plan/1', expected a result of `bench -o`" in refused("report", plan)
    plan.write_text("no JSON")
    assert "plan.json" in refused("report", plan)
    assert "nothing.json" in refused("report", tmp_path / "nothing.json")
    assert "got a report that ends in '.json', expected .html or .md" in refused("report", plan, "-o", plan)


def test_a_file_that_is_not_there(tiny_bundle: Path, inside: Path) -> None:
    message = refused("report", "none.json")
    assert "cannot read none.json: No such file or directory; give a file that `bench -o` or" in message
    message = refused("bench", tiny_bundle, "--baseline", "none.json")
    assert "cannot read none.json: No such file or directory; give a file that `bench -o` wrote" in message


def test_bench_writes_a_page_and_keeps_its_report(tiny_bundle: Path, tmp_path: Path) -> None:
    out, page = tmp_path / "bench.json", tmp_path / "bench.html"
    words = ("bench", tiny_bundle, "--against", tiny_bundle, "-o", out, "--report", page, *QUICK)
    ended = run(*words)
    assert ended.exit_code == 0, ended.output
    assert "To repeat it" not in ended.stdout, "it is above"
    later = tmp_path / "later.html"
    assert run("report", out, "-o", later).exit_code == 0
    assert Tags(later.read_text()).names == Tags(page.read_text()).names
    assert "Warm latency</h2>" in page.read_text() and "<svg class=chart" in page.read_text()
    assert "--force" in refused(*words)
    assert "--report say how to measure" in refused(
        "bench", tiny_bundle, "--emit-project", tmp_path / "p", "--report", tmp_path / "new.html"
    )


def test_pictures_that_are_no_drawings_are_left_out_of_the_file() -> None:
    from morvit_deploy.report import Picture, Report

    report = Report("R", [Picture("P", Path("p.png"), content=b"png"), Table("T", ("a",), [("1",)])])
    assert [part["title"] for part in stored(report)["parts"]] == ["T"]


@pytest.mark.skipif(find_chromium() is None, reason="no browser of the Chromium family is installed")
def test_a_phone_scrolls_tables_and_not_the_page(result: Path, tmp_path: Path) -> None:
    assert run("report", result).exit_code == 0
    with browser(tmp_path / "profile") as tab:
        tab.goto(result.with_suffix(".html").as_uri())
        tab.wait_for("document.querySelectorAll('table').length >= 4")
        for width, dark in ((375, False), (375, True), (1280, False)):
            tab.screenshot(tmp_path / "page.png", width=width, dark=dark)
            assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
            assert tab.evaluate("matchMedia('(prefers-color-scheme: dark)').matches") is dark
        loaded = (
            "performance.getEntriesByType('resource').filter(one => !one.name.startsWith('data:')).length"
        )
        assert tab.evaluate(loaded) == 0
        assert tab.complaints == []


def test_a_page_begins_with_buckets_depths_and_warnings(
    exported: Callable[..., Path], calibration_folder: Path, tmp_path: Path
) -> None:
    bundle = exported(EXPERT, plan=threshold_ladder(), with_depth=True)
    page, out = tmp_path / "bench.html", tmp_path / "bench.json"
    ended = run(
        "bench", bundle, "--images", calibration_folder, "--upscale", "-o", out, "--report", page, *QUICK
    )
    assert ended.exit_code == 0, ended.output
    text = page.read_text().replace("\u00a0", " ")
    titles = re.findall(r"<h2>(.*?)</h2>", text)
    assert titles[0] == "Median time of an image in each bucket of bundle"
    assert titles[2] == "Depth maps of sample pictures" and "data:image/png;base64," in text
    assert "% fed" in text and "Depth maps" not in ended.stdout and "bars.svg" not in ended.stdout
    again = read_report(out)
    assert next(part.title for part in again.parts) == titles[0], "the drawing is in the file"


def test_warnings_are_on_the_page() -> None:
    report = with_command(comparison(*ROWS).report(), ["the machine was busy"])
    titles = [part.title for part in report.parts]
    assert titles[0] == "Warnings" and titles[-1] == "To repeat it"
    assert "the machine was busy" in report.html()


@pytest.mark.parametrize("command", ["verify", "inspect", "calibrate"])
def test_other_commands_that_measure_write_a_page(
    command: str, exported: Callable[..., Path], calibration_folder: Path, tmp_path: Path
) -> None:
    bundle, page = exported(EXPERT), tmp_path / "page.html"
    checkpoint = bundle.parent / "checkpoint"
    own = {
        "verify": (bundle, "--checkpoint", checkpoint),
        "inspect": (checkpoint,),
        "calibrate": (checkpoint, "-o", tmp_path / "plan.json", "--images", calibration_folder, "--upscale"),
    }[command]
    ended = run(command, *own, "--report", page)
    assert ended.exit_code == 0, ended.output
    text = page.read_text()
    assert text.startswith("<!-- morvit-deploy -->") and "To repeat it</h2>" in text
    assert all(one.startswith(("#", "data:image/png")) for one in Tags(text).references)
    for plan in tmp_path.glob("plan*"):
        plan.unlink()
    assert "page.html exists; pass --force" in refused(command, *own, "--report", page)
    assert page.read_text() == text
    assert "expected .html or .md" in refused(command, *own, "--report", tmp_path / "page.pdf")
