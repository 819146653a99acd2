"""A real export that is interrupted, killed or runs out of disk leaves nothing under the bundle's name."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from morvit_deploy import CheckpointError, export

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and limits of POSIX")

COMMAND = [sys.executable, "-c", "from morvit_deploy.cli import main; main()", "export"]
WAIT_S = 120.0  # a busy machine


def hear_interrupts() -> None:
    """A shell's background job, which a test run may be, ignores them."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def start(checkpoint: Path, out: Path, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, str(checkpoint), "-o", str(out), "--json", *more],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=hear_interrupts,
    )  # fmt: skip


def partials(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if ".partial-" in path.name]


def wait_for(process: subprocess.Popen[str], folder: Path, content: str) -> None:
    """Until the export has begun to write: `content` matches a file or folder in the place."""
    end = time.monotonic() + WAIT_S
    while process.poll() is None and time.monotonic() < end:
        if list(folder.glob(content)):
            return
        time.sleep(0.005)
    raise AssertionError(f"the export ended first: {process.communicate()}")


MOMENTS = {"begun": ".out.partial-*", "graph written": ".out.partial-*/new/out/model.onnx"}


@pytest.mark.parametrize(
    ("number", "moment"),
    [(signal.SIGTERM, "begun"), (signal.SIGINT, "graph written")],
    ids=["SIGTERM", "SIGINT"],
)
def test_an_interrupted_export_cleans_up(
    tiny_checkpoint: Path, tmp_path: Path, number: signal.Signals, moment: str
) -> None:
    process = start(tiny_checkpoint, tmp_path / "out")
    wait_for(process, tmp_path, MOMENTS[moment])
    process.send_signal(number)
    out, err = process.communicate(timeout=WAIT_S)
    assert process.returncode not in (0, 1)
    assert "Traceback" not in err and "interrupted" in err
    assert out == ""
    assert list(tmp_path.iterdir()) == []


def test_a_killed_export_leaves_no_bundle_and_the_next_sweeps(tiny_checkpoint: Path, tmp_path: Path) -> None:
    process = start(tiny_checkpoint, tmp_path / "out")
    wait_for(process, tmp_path, MOMENTS["graph written"])
    process.kill()
    process.communicate(timeout=WAIT_S)
    assert not (tmp_path / "out").exists()
    assert len(partials(tmp_path)) == 1
    export(tiny_checkpoint, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_interrupt_before_anything_is_written(tiny_checkpoint: Path, tmp_path: Path) -> None:
    process = start(tiny_checkpoint, tmp_path / "out")
    time.sleep(0.6)  # imports are under way
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=WAIT_S)
    assert process.returncode != 0
    assert list(tmp_path.iterdir()) == []
    assert "RuntimeError" not in err


def test_the_old_bundle_outlives_an_interrupted_replacement(
    tiny_checkpoint: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_bundle, tmp_path / "out")
    process = start(tiny_checkpoint, tmp_path / "out", "--force")
    wait_for(process, tmp_path, MOMENTS["begun"])
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=WAIT_S)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    for name in ("manifest.json", "model.onnx", "weights.bin"):
        assert (tmp_path / "out" / name).read_bytes() == (tiny_bundle / name).read_bytes()


@pytest.mark.parametrize("stage", ["unrolling", "verifying against the float64 reference"])
def test_a_checkpoint_that_changes_is_refused(tiny_checkpoint: Path, tmp_path: Path, stage: str) -> None:
    checkpoint = shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint")

    def train_on(said: str) -> None:
        if said == stage:
            other = checkpoint / "other"
            other.write_bytes((checkpoint / "model.safetensors").read_bytes()[:-1] + b"\0")
            other.rename(checkpoint / "model.safetensors")

    with pytest.raises(CheckpointError, match=r"changed while it was read .* nothing was written"):
        export(checkpoint, tmp_path / "out", tell=train_on)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_export_reports_how_far_each_stage_is(tiny_checkpoint: Path, tmp_path: Path) -> None:
    shares: list[float] = []
    export(tiny_checkpoint, tmp_path / "out", progress=shares.append)
    assert shares and shares[-1] == 1.0 and all(0 <= share <= 1 for share in shares)


def start_init(out: Path, **options: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND[:-1], "init", "--preset", "morvit_tiny_digits", "-o", str(out)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,  # type: ignore[call-overload]
    )  # fmt: skip


def assert_refused(process: subprocess.Popen[str], folder: Path, words: str) -> None:
    out, err = process.communicate(timeout=WAIT_S)
    assert process.returncode == 2, err
    assert out == ""
    assert "Traceback" not in err
    assert "was not written" in err and words in err
    assert list(folder.iterdir()) == []


def test_a_file_that_cannot_grow_is_one_message(tmp_path: Path) -> None:
    limit = 25_000  # bytes: in the middle of the weights

    def cap() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then a write fails, as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    assert_refused(start_init(tmp_path / "out", preexec_fn=cap), tmp_path, "File too large")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 32 kB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = shutil.which("mount") and os.geteuid() == 0
    if (
        not mounted
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", str(place)], capture_output=True
        ).returncode
    ):
        pytest.skip("may not mount a small file system here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("command", ["export", "init"])
def test_a_full_disk_is_one_message(tiny_checkpoint: Path, small_disk: Path, command: str) -> None:
    out = small_disk / "out"
    process = start(tiny_checkpoint, out) if command == "export" else start_init(out)
    assert_refused(process, small_disk, "free some space")
