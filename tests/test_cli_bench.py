"""`morvit-deploy bench`: exit status, one message, valid JSON, the file it writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from morvit_deploy.cli import app

QUICK = ("--threads", "1", "--runs", "10", "--blocks", "2", "--warmup", "1", "--starts", "1")


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["bench", *map(str, arguments)])


def only_message(ended: Result) -> str:
    """The message of a refused call: one `error:`, no traceback, nothing on stdout."""
    assert ended.exit_code == 2
    assert ended.stdout == ""
    assert ended.stderr.count("error:") == 1
    assert "Traceback" not in ended.stderr
    return ended.stderr


def test_json_is_one_document(tiny_bundle: Path) -> None:
    ended = run(tiny_bundle, "--against", tiny_bundle, "--json", *QUICK)
    assert ended.exit_code == 0
    data = json.loads(ended.stdout)
    assert [len(bundle["blocks"]) for bundle in data["bundles"]] == [2, 2]
    assert len(data["ratios"][0]["per_block"]) == 2
    assert "synthetic" in ended.stderr


def test_tables_and_file(tiny_bundle: Path, tmp_path: Path) -> None:
    ended = run(tiny_bundle, "-o", tmp_path / "new" / "bench.json", *QUICK)
    assert ended.exit_code == 0
    for title in ("Warm latency", "Start of a new process", "Work and memory", "Conditions"):
        assert title in ended.stdout
    assert "Speed of" not in ended.stdout  # there is nothing to compare with
    assert json.loads((tmp_path / "new" / "bench.json").read_text())["format"] == "morvit-bench/1"


def test_images_of_a_folder(tiny_bundle: Path, image_files: list[Path]) -> None:
    ended = run(tiny_bundle, "--images", image_files[0].parent, *QUICK)
    assert ended.exit_code == 0
    assert "synthetic" not in ended.stdout + ended.stderr


@pytest.mark.parametrize("device", ["cuda", "jetson", "iphone", "mac", "toaster"])
def test_device_that_this_version_does_not_measure(tiny_bundle: Path, device: str) -> None:
    message = only_message(run(tiny_bundle, "--device", device))
    assert f"got device '{device}'" in message
    assert "cpu" in message


def test_missing_bundle(tmp_path: Path) -> None:
    assert "cannot read" in only_message(run(tmp_path / "nothing"))


def test_no_bundle_and_none_under_build(inside: Path) -> None:
    assert "no BUNDLE given" in only_message(run())


def test_damaged_bundle(copied_bundle: Path) -> None:
    with (copied_bundle / "weights.bin").open("r+b") as file:
        file.write(b"\xff\xff\xff\xff")
    assert "weights.bin" in only_message(run(copied_bundle, *QUICK))


def test_damaged_bundle_to_compare_with(tiny_bundle: Path, copied_bundle: Path) -> None:
    (copied_bundle / "manifest.json").write_text("{}")
    assert "manifest.json" in only_message(run(tiny_bundle, "--against", copied_bundle, *QUICK))


def test_output_that_is_a_folder(tiny_bundle: Path, tmp_path: Path) -> None:
    assert "is a folder" in only_message(run(tiny_bundle, "-o", tmp_path, *QUICK))


def test_short_blocks_are_bad_usage(tiny_bundle: Path) -> None:
    assert run(tiny_bundle, "--runs", "9").exit_code == 2
