"""`bench`: raw samples kept, the rest derived; a process that dies gives one clear error. Nothing is timed here."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from broken_answers import fill_with_nan
from bucket_plans import EXPERT, threshold_ladder
from measurements import measured
from tiny_models import make_config

from morvit_deploy.agent.parity import gaps
from morvit_deploy.errors import AnswerError, BundleError, ImageError, TargetError
from morvit_deploy.measuring.bench import bench
from morvit_deploy.measuring.core.inputs import Source, in_rounds, prepare
from morvit_deploy.measuring.core.parity import LogitParity, expected_answers
from morvit_deploy.measuring.core.results import BenchResult, MeasuredBundle
from morvit_deploy.measuring.cpu import process as bench_process
from morvit_deploy.measuring.cpu.process import Worker
from morvit_deploy.model.answers.heads import UNDECIDED
from morvit_deploy.timing.conditions import Usage, usage
from morvit_deploy.timing.loop import MAX_RUNS, MIN_RUNS
from morvit_deploy.timing.result import Ratio, warnings_about
from morvit_deploy.timing.samples import Block, percentiles

QUICK = {"threads": 1, "runs": MIN_RUNS, "blocks": 2, "warmup": 1, "starts": 1}


def conditions(load: float) -> dict[str, Any]:
    """Of a machine with two cores."""
    return {"load_average_before": [load] * 3, "cpu_used_before_percent": 0.0, "machine": {"cores": 2}}


def result(*bundles: MeasuredBundle) -> BenchResult:
    return BenchResult("cpu", bundles, {}, ())


@pytest.fixture(scope="module")
def two(tiny_bundle: Path) -> BenchResult:
    """The tiny bundle against itself."""
    return bench([tiny_bundle, tiny_bundle], **QUICK)


@pytest.mark.parametrize("output", ["features", "tokens"])
def test_arrays_are_compared_and_measured(output: str, exported: Callable[..., Path]) -> None:
    """Of a ladder, with its buckets, and where the time goes."""
    bundle = exported(EXPERT, plan=threshold_ladder(), output=output)
    (one,) = (result := bench(bundle, profile=True, **QUICK)).measured
    (parity,) = result.conditions["parity"].values()
    assert parity["images"] == 16 and parity["apart"] == 0 and "class_flips" not in parity
    assert one.mix is not None and one.profile is not None and one.samples_ms
    json.dumps(result.as_dict(), allow_nan=False)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_other_arrays_are_not_measured(precision: str, exported: Callable[..., Path], tmp_path: Path) -> None:
    bundle = exported(make_config(routing="none"), output="features", precision=precision)
    subject = prepare(bundle, Source(), tmp_path / "pixels.npy")
    expected = expected_answers(subject)
    assert LogitParity.of("b", "here", precision, gaps(expected, expected), UNDECIDED).agrees
    for other in (expected + 0.1 * np.abs(expected).max(), np.full_like(expected, np.nan)):
        parity = LogitParity.of("b", "here", precision, gaps(other, expected), UNDECIDED)
        assert not parity.agrees and "other numbers here" in parity.problem
        json.dumps(parity.as_dict(), allow_nan=False)


@pytest.fixture
def worker_program(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Replace what the worker process runs by a line of Python."""

    def serve(program: str) -> None:
        monkeypatch.setattr(bench_process, "_COMMAND", ("-c", program))

    return serve


class TestDerivedFigures:
    def test_percentiles_interpolate_and_leave_the_samples_alone(self) -> None:
        samples = [float(ms) for ms in range(100, -1, -1)]
        assert percentiles(samples) == {"p50": 50.0, "p90": 90.0, "p99": 99.0}
        assert samples[0] == 100.0

    def test_percentiles_of_one_sample(self) -> None:
        assert percentiles([7.0]) == {"p50": 7.0, "p90": 7.0, "p99": 7.0}

    def test_throughput_counts_every_image_of_a_batch(self) -> None:
        assert measured((4.0, 6.0), batch=3).images_per_s == pytest.approx(600)

    def test_gmacs_per_second_at_the_median(self) -> None:
        assert measured((2.0, 2.0, 9.0), macs=2_000_000).gmacs_per_s == pytest.approx(1.0)

    def test_cold_start_is_a_median(self) -> None:
        assert measured((1.0,)).start_ms("cold_start_ms") == 5.0

    def test_drift_is_measured_from_the_first_block(self) -> None:
        assert measured((2.0,), (3.0,), (1.0,)).drift == pytest.approx(0.5)

    def test_ratio_goes_block_by_block(self) -> None:
        of, against = measured((1.0,), (2.0,)), measured((3.0,), (4.0,), bundle="b")
        assert result(of, against).ratios == [Ratio("a", "b", (3.0, 2.0))]
        assert result(of, against).ratio(1, against=0).per_block == pytest.approx((1 / 3, 1 / 2))

    def test_ratio_is_per_image(self) -> None:
        of, against = measured((4.0,), batch=4), measured((2.0,), batch=1)
        assert result(of, against).ratios[0].per_block == (2.0,)


class TestConditions:
    def test_what_others_use_is_neither_idle_nor_our_own(self) -> None:
        cores = psutil.cpu_count() or 1
        before, later = (
            Usage(0.0, busy_s=5.0, own_s=1.0),
            Usage(2.0, busy_s=5.0 + 1.5 * cores, own_s=1.0 + cores),
        )
        assert before.others_percent(later) == pytest.approx(25)

    def test_a_process_that_has_ended_uses_nothing(self) -> None:
        with subprocess.Popen([sys.executable, "-c", ""]) as ended:
            pass
        assert usage(ended.pid).own_s == 0

    def test_a_quiet_and_steady_machine_gives_no_warning(self) -> None:
        assert warnings_about(conditions(load=0.9), [measured((1.0,), (1.1,))]) == ()

    def test_a_load_before_the_start_is_told(self) -> None:
        (warning,) = warnings_about(conditions(load=1.1), [measured((1.0,))])
        assert "load average 1.10 over 2 cores" in warning

    def test_drift_is_told_with_the_bundle(self) -> None:
        (warning,) = warnings_about(conditions(load=0.0), [measured((1.0,), (1.3,), bundle="build/x")])
        assert warning.startswith("build/x: a block differs from the first by 30%")

    def test_others_during_the_runs_are_told(self) -> None:
        busy = replace(measured(), blocks=(Block((1.0,), others_percent=40.0),))
        (warning,) = warnings_about(conditions(load=0.0), [busy])
        assert "other processes used 40 %" in warning


class TestMeasurement:
    def test_every_raw_sample_is_kept(self, two: BenchResult) -> None:
        for bundle in two.as_dict()["bundles"]:
            assert [len(block["ms"]) for block in bundle["blocks"]] == [MIN_RUNS] * 2
            assert [len(block["warmup_ms"]) for block in bundle["blocks"]] == [1] * 2
            samples = [ms for block in bundle["blocks"] for ms in block["ms"]]
            assert bundle["latency_ms"] == percentiles(samples)

    def test_json_round_trip(self, two: BenchResult) -> None:
        data = two.as_dict()
        again = json.loads(json.dumps(data, allow_nan=False))
        assert all(again[part] == data[part] for part in ("bundles", "ratios", "warnings"))

    def test_loading_is_part_of_the_cold_start(self, two: BenchResult) -> None:
        for start in two.measured[0].starts:
            assert start.cold_start_ms > start.load_ms + start.first_run_ms > 0

    def test_conditions_say_what_was_done(self, two: BenchResult) -> None:
        known = two.conditions
        assert (known["threads"], known["blocks"], known["runs_per_block"]) == (1, 2, MIN_RUNS)
        assert known["inputs"] == "synthetic pictures"
        assert {"machine", "versions", "date", "load_average_before", "cpu_mhz", "cpu_governor"} <= set(known)

    def test_macs_and_bytes_are_the_manifest_s(self, two: BenchResult, tiny_bundle: Path) -> None:
        manifest = json.loads((tiny_bundle / "manifest.json").read_text())
        assert two.measured[0].macs == manifest["macs"]
        assert two.measured[0].file_bytes == sum(file["bytes"] for file in manifest["files"])

    def test_memory_is_the_worker_s_own(self, two: BenchResult) -> None:
        assert (
            10 < two.measured[0].memory_mib["resident"] < 1000
        )  # MiB; this process holds PyTorch, the worker not

    def test_images_of_a_folder_are_fed(self, tiny_bundle: Path, image_files: list[Path]) -> None:
        folder = image_files[0].parent
        alone = bench(tiny_bundle, images=folder, **QUICK)
        assert alone.conditions["inputs"] == f"pictures of {folder}"
        assert alone.ratios == []

    def test_runs_are_chosen_when_not_given(self, tiny_bundle: Path) -> None:
        shares: list[float] = []
        chosen = bench(tiny_bundle, **QUICK | {"runs": None, "blocks": 1}, progress=shares.append)
        assert MIN_RUNS <= len(chosen.measured[0].samples_ms) <= MAX_RUNS
        assert shares == [0.5, 1.0]

    def test_rounds_use_every_picture(self) -> None:
        pixels = np.arange(5, dtype=np.uint8).reshape(5, 1, 1, 1)
        assert in_rounds(pixels, 2)[..., 0, 0, 0].tolist() == [[0, 1], [2, 3], [4, 0]]


class TestRefusals:
    @pytest.mark.parametrize(
        "options", [{"device": "nano"}, {"runs": 9}, {"blocks": 0}, {"warmup": -1}, {"starts": 0}], ids=str
    )
    def test_options_that_cannot_be_measured(self, tiny_bundle: Path, options: dict[str, object]) -> None:
        with pytest.raises(TargetError, match="got"):
            bench(tiny_bundle, **QUICK | options)  # type: ignore[arg-type]

    def test_batch_of_a_fixed_bundle(self, tiny_bundle: Path) -> None:
        with pytest.raises(TargetError, match="--batch dynamic"):
            bench(tiny_bundle, batch=4, **QUICK)

    def test_missing_bundle(self, tmp_path: Path) -> None:
        with pytest.raises(BundleError, match="cannot read"):
            bench(tmp_path / "nothing", **QUICK)

    def test_damaged_bundle(self, copied_bundle: Path) -> None:
        (copied_bundle / "model.onnx").write_bytes(b"cut")
        with pytest.raises(BundleError, match=r"model\.onnx: 3 bytes"):
            bench(copied_bundle, **QUICK)

    def test_answers_that_are_not_finite(self, copied_bundle: Path, tmp_path: Path) -> None:
        """Nothing is timed: what the bundle is compared with is no answer."""
        subject = prepare(fill_with_nan(copied_bundle), Source(), tmp_path / "pixels.npy")
        with pytest.raises(
            AnswerError, match=r"logits in bucket 'topk', run by ONNX Runtime .*: got NaN or Inf"
        ):
            expected_answers(subject)

    def test_folder_without_images(self, tiny_bundle: Path, tmp_path: Path) -> None:
        with pytest.raises(ImageError, match="no images"):
            bench(tiny_bundle, images=tmp_path, **QUICK)


class TestWorker:
    def test_bundle_damaged_after_the_check(self, copied_bundle: Path, tmp_path: Path) -> None:
        subject = prepare(copied_bundle, Source(), tmp_path / "pixels.npy")
        (copied_bundle / "weights.bin").write_bytes(b"")
        with pytest.raises(BundleError, match=r"weights\.bin"):
            Worker(subject.bundle, "onnx", subject.pixels, 1)

    def test_death_while_loading_shows_its_stderr(
        self, tiny_bundle: Path, worker_program: Callable[[str], None]
    ) -> None:
        worker_program("import sys; sys.exit('no such instruction')")
        with pytest.raises(
            TargetError, match=r"ended while loading: exit status 1(?s:.)*\| no such instruction"
        ):
            bench(tiny_bundle, **QUICK)

    def test_death_while_running(self, tiny_bundle: Path, tmp_path: Path) -> None:
        subject = prepare(tiny_bundle, Source(), tmp_path / "pixels.npy")
        with Worker(tiny_bundle, "onnx", subject.pixels, 1) as worker:
            worker._child.process.kill()
            with pytest.raises(TargetError, match="ended while running: SIGKILL"):
                worker.run(runs=MIN_RUNS, warmup=0)

    def test_silence_ends_at_the_time_limit(
        self, tiny_bundle: Path, worker_program: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        worker_program("import time; time.sleep(600)")
        monkeypatch.setattr(bench_process, "START_TIMEOUT_S", 0.2)
        with pytest.raises(TargetError, match="gave no reply"):
            bench(tiny_bundle, **QUICK)

    def test_nonsense(self, tiny_bundle: Path, worker_program: Callable[[str], None]) -> None:
        worker_program("print('hello')")
        with pytest.raises(TargetError, match="expected JSON"):
            bench(tiny_bundle, **QUICK)

    def test_interruption_leaves_no_process(self, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        started: list[Worker] = []

        def interrupted(worker: Worker, runs: int, warmup: int) -> Block:
            started.append(worker)
            raise KeyboardInterrupt

        monkeypatch.setattr(Worker, "run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            bench(tiny_bundle, **QUICK)
        assert started[0]._child.process.poll() is not None

    def test_ends_when_its_stdin_does(self, tiny_bundle: Path, tmp_path: Path) -> None:
        subject = prepare(tiny_bundle, Source(), tmp_path / "pixels.npy")
        arguments = [str(tiny_bundle), "onnx", str(subject.pixels), "1"]
        command = [sys.executable, "-m", "morvit_deploy.measuring.cpu.worker", *arguments]
        ended = subprocess.run(command, input="", capture_output=True, text=True, timeout=120)
        assert (ended.returncode, ended.stderr) == (0, "")
        assert set(json.loads(ended.stdout)) == {"load_ms", "first_run_ms", "anonymous_mib", "resident_mib"}

    def test_a_file_in_the_current_folder_shadows_no_module(self, tiny_bundle: Path, inside: Path) -> None:
        (inside / "onnxruntime.py").write_text("raise SystemExit('shadowed')")
        if sys.version_info < (3, 11):
            pytest.skip("PYTHONSAFEPATH came with Python 3.11")
        assert bench(tiny_bundle, **QUICK).measured


def test_no_torch(tiny_bundle: Path, tmp_path: Path) -> None:
    """Neither the worker nor the one who asks loads it."""
    subject = prepare(tiny_bundle, Source(), tmp_path / "pixels.npy")
    program = (
        "import sys, morvit_deploy.measuring.bench, morvit_deploy.measuring.views; "
        "from morvit_deploy.measuring.cpu import worker; "
        "worker.main(sys.argv[1:]); print('torch' in sys.modules, file=sys.stderr)"
    )
    command = [sys.executable, "-c", program, str(tiny_bundle), "onnx", str(subject.pixels), "1"]
    ended = subprocess.run(command, input='{"memory": true}\n', capture_output=True, text=True, timeout=120)
    assert ended.stderr.strip() == "False", ended.stderr
    assert "resident" in json.loads(ended.stdout.splitlines()[1])
