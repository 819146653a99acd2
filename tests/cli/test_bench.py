"""`morvit-deploy bench`: exit status, one message, valid JSON, the file it writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from bucket_plans import EXPERT, threshold_ladder
from typer.testing import CliRunner, Result

from morvit_deploy.cli import app
from morvit_deploy.measuring.profiling import rates
from morvit_deploy.model.config import load_config

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


@pytest.mark.parametrize("device", ["nano", "toaster"])
def test_device_that_this_version_does_not_measure(tiny_bundle: Path, device: str) -> None:
    message = only_message(run(tiny_bundle, "--device", device))
    assert f"got device '{device}'" in message
    assert "cpu" in message


def test_missing_bundle(tmp_path: Path) -> None:
    assert "nothing does not exist" in only_message(run(tmp_path / "nothing"))


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


@pytest.fixture(scope="module")
def adaptive(exported: Callable[..., Path]) -> Path:
    """A bundle that chooses a bucket for each image."""
    return exported(EXPERT, plan=threshold_ladder())


def test_tables_of_a_bundle_that_chooses_buckets(adaptive: Path) -> None:
    ended = run(adaptive, *QUICK)
    assert ended.exit_code == 0
    for title in ("Buckets of bundle, one image a run", "Over a mix", "Dispatch overhead per image"):
        assert title in ended.stdout


def test_verdict(adaptive: Path, tmp_path: Path) -> None:
    checkpoint, out = adaptive.parent / "checkpoint", tmp_path / "verdict.json"
    words = ("--verdict", "--checkpoint", checkpoint, "--batches", "1", "--topk-scale", "1.3", "-o", out)
    ended = run(adaptive, *words, *QUICK)
    assert ended.exit_code == 0
    assert "Verdict on the plan of" in ended.stdout
    assert "synthetic pictures, which use other buckets" in " ".join(ended.stderr.split())
    (found,) = json.loads(out.read_text())["verdict"]["batches"]
    assert [one["form"] for one in found["contenders"]] == ["adaptive", "adaptive", "top-k", "dense"]
    assert "(1.3×)" in ended.stdout
    own = load_config(checkpoint).capacity
    assert own is not None and all(
        held >= k for held, k in zip(found["contenders"][2]["capacity"], own, strict=True)
    )
    assert found["contenders"][0]["measured"]["blocks"][0]["bucket"]


def test_verdict_without_a_checkpoint(adaptive: Path, inside: Path) -> None:
    assert "--checkpoint" in only_message(run(adaptive, "--verdict"))


def test_verdict_on_a_bundle_of_one_bucket(tiny_bundle: Path, tiny_checkpoint: Path) -> None:
    message = only_message(run(tiny_bundle, "--verdict", "--checkpoint", tiny_checkpoint))
    assert "export with --plan" in " ".join(message.split())


@pytest.mark.parametrize("batches", ["", "1,x", "0", "8;16", "1,,2", "64", "-1"])
def test_batches_that_are_none(tiny_bundle: Path, tiny_checkpoint: Path, batches: str) -> None:
    message = only_message(
        run(tiny_bundle, "--verdict", "--checkpoint", tiny_checkpoint, f"--batches={batches}")
    )
    assert "batches: got" in message


@pytest.mark.parametrize("words", [("--batch", "8"), ("--against", "other")], ids=str)
def test_verdict_chooses_what_to_measure(adaptive: Path, words: tuple[str, ...]) -> None:
    message = only_message(run(adaptive, "--verdict", "--checkpoint", adaptive.parent / "checkpoint", *words))
    assert "--batches instead of --batch" in " ".join(message.split())


@pytest.mark.parametrize("words", [("--checkpoint", "c"), ("--batches", "1"), ("--topk-scale", "2")], ids=str)
def test_what_is_for_the_verdict_alone(tiny_bundle: Path, words: tuple[str, ...]) -> None:
    assert "are for --verdict" in " ".join(only_message(run(tiny_bundle, *words)).split())


def test_batch_of_a_bundle_of_fixed_batch(adaptive: Path) -> None:
    assert "--batch dynamic" in " ".join(only_message(run(adaptive, "--batch", "8", *QUICK)).split())


def test_profile_is_printed_in_80_columns(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "weights_mib", lambda caches: 1.0)
    monkeypatch.setenv("COLUMNS", "80")
    ended = run(tiny_bundle, "--profile", *QUICK)
    assert ended.exit_code == 0
    assert "Time of bundle, bucket topk" in ended.stdout and "What bounds bundle" in ended.stdout
    assert max(map(len, ended.stdout.splitlines())) <= 80


def test_profile_writes_its_picture_beside_the_numbers(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rates, "weights_mib", lambda caches: 1.0)
    out, picture = tmp_path / "bench.json", tmp_path / "bench.profile.svg"
    picture.write_text("<svg>mine</svg>")
    for force in ((), ("--force",)):
        assert "bench.profile.svg" in only_message(run(tiny_bundle, "--profile", "-o", out, *force, *QUICK))
    picture.unlink()
    for force in ((), ("--force",)):
        assert run(tiny_bundle, "--profile", "-o", out, *force, *QUICK).exit_code == 0
    assert picture.read_text().startswith("<svg") and json.loads(out.read_text())["bundles"][0]["profile"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--device", "ssh", "--host", "user@board"), "install this package on the board"),
        (("--device", "browser"), "the browser's own performance panel"),
        (("--device", "cuda"), "trtexec --loadEngine=FILE --dumpProfile"),
        (("--verdict", "--checkpoint", "x"), "--profile explains one bundle, and --verdict compares"),
        (("--emit-project", "x"), "--profile measures and --emit-project does not"),
        (("--runs", "1"), "--runs"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_profile_where_there_is_none(tiny_bundle: Path, options: tuple[str, ...], expected: str) -> None:
    ended = run(tiny_bundle, "--profile", *options)
    assert ended.exit_code == 2 and ended.stdout == ""
    assert expected in " ".join(ended.stderr.split())


def test_a_bundle_that_became_slower_is_status_1(tiny_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "old.json"
    assert run(tiny_bundle, "-o", out, *QUICK).exit_code == 0
    same = run(tiny_bundle, "--baseline", out, "--max-slower", "900%", *QUICK)
    assert same.exit_code == 0 and "Against old.json" in same.stdout
    found = json.loads(out.read_text())
    for block in found["bundles"][0]["blocks"]:
        block["ms"] = [ms / 1000 for ms in block["ms"]]
    out.write_text(json.dumps(found))
    slower = run(tiny_bundle, "--baseline", out, *QUICK)
    assert slower.exit_code == 1 and "Against old.json" in slower.stdout
    assert "error: slower than before: bundle by" in slower.stderr


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("--max-slower", "5%"), "--max-slower is for --baseline"),
        (("--baseline", "x.json", "--max-slower", "5"), "got '5', expected a percentage such as 5%"),
        (("--baseline", "x.json", "--max-slower", "-5%"), "got '-5%', expected a percentage"),
        (("--baseline", "x.json", "--verdict", "--checkpoint", "c"), "leave it out with --verdict"),
        (("--baseline", "x.json", "--device", "mac"), "leave it out with"),
        (("--baseline", "x.json"), "x.json"),
    ],
    ids=str,
)
def test_a_baseline_that_cannot_be_used(
    tiny_bundle: Path, inside: Path, words: tuple[str, ...], problem: str
) -> None:
    assert problem in " ".join(only_message(run(tiny_bundle, *words)).split())
