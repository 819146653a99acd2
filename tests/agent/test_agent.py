"""The agent without a network: its archive, its Python, its requests, and that it leaves nothing behind."""

from __future__ import annotations

import ast
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from device_code import old_python
from shipped_bundles import gone, unpacked

import morvit_deploy.agent as agent_package
from morvit_deploy.agent import conditions, runtimes
from morvit_deploy.agent.core.faults import AgentError, Lacking, Refused
from morvit_deploy.agent.core.recipe import RECIPE, Recipe, read_recipe
from morvit_deploy.agent.folder import MARK, boot_id, sweep
from morvit_deploy.agent.host import processor
from morvit_deploy.agent.host.machine import memory_mib
from morvit_deploy.agent.parity import compared
from morvit_deploy.agent.serving import Model, Rounds
from morvit_deploy.agent.transfer import receive
from morvit_deploy.measuring.core.inputs import Source, prepare
from morvit_deploy.measuring.core.parity import DEVICE_TOLERANCE, LogitParity
from morvit_deploy.remote.host import Host
from morvit_deploy.remote.loader import agent_archive, load_command
from morvit_deploy.remote.shipment import write_to

MOST_BYTES = 5 << 20
PACKAGE = Path(agent_package.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
ALLOWED = {"numpy", "onnxruntime", *sys.stdlib_module_names}
ANSWER_S = 60.0


def older_pythons() -> list[str]:
    """Interpreters of 3.8 and 3.9 that start here."""
    return [found for version in ("3.8", "3.9") if (found := old_python(version))]


class Conversation:
    """The agent as a device's shell starts it, with pipes in place of a network."""

    def __init__(self, folder: Path, python: str = sys.executable, size: int | None = None) -> None:
        archive = agent_archive()
        command = load_command(Host("board", folder=str(folder), python=python), size or len(archive))
        self.process = subprocess.Popen(
            ["sh", "-c", f"exec {command}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.send(archive)

    def send(self, content: bytes) -> None:
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # one that gave up early has answered
            self.process.stdin.write(content)
            self.process.stdin.flush()

    def ask(self, **request: Any) -> dict[str, Any]:
        self.send(json.dumps(request).encode() + b"\n")
        return self.answer()

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        while True:
            answer: dict[str, Any] = json.loads(self.process.stdout.readline())
            if "beat" not in answer:
                return answer


@contextmanager
def talking(folder: Path, **options: Any) -> Iterator[Conversation]:
    """A conversation that ends with the block."""
    conversation = Conversation(folder, **options)
    try:
        yield conversation
    finally:
        conversation.process.kill()
        with conversation.process:  # closes its pipes
            pass


@pytest.fixture
def shipped(tiny_bundle: Path, tmp_path: Path) -> Path:
    """The tiny bundle as it lies on a device."""
    subject = prepare(tiny_bundle, Source(), tmp_path / "pixels.npy")
    return unpacked(subject, tmp_path / "shipped")


class TestArchive:
    def test_same_bytes_and_small(self) -> None:
        first = agent_archive()
        agent_archive.cache_clear()
        assert agent_archive() == first
        assert len(first) <= MOST_BYTES

    def test_holds_the_agent_and_nothing_else(self) -> None:
        with zipfile.ZipFile(io.BytesIO(agent_archive())) as archive:
            names = set(archive.namelist())
        own = {f"morvit_deploy/agent/{path.relative_to(PACKAGE).as_posix()}" for path in MODULES}
        assert names == own | {"__main__.py", "morvit_deploy/__init__.py"}

    @pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
    def test_python_3_8_reads_it(self, path: Path) -> None:
        ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 8))

    @pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
    def test_imports_nothing_but_itself_numpy_and_the_runtime(self, path: Path) -> None:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) and not node.level else []
            foreign = [name for name in names if name.split(".")[0] not in ALLOWED]
            assert all(name.startswith("morvit_deploy.agent") for name in foreign), foreign

    @pytest.mark.parametrize("python", [*older_pythons(), sys.executable])
    def test_runs_on_python(self, python: str, tmp_path: Path) -> None:
        """Without numpy, too, so that it can say what is missing."""
        with talking(tmp_path, python=python) as agent:
            hello = agent.answer()
            assert Path(hello["hello"]).parent == tmp_path
            found = agent.ask(do="conditions", names=["linux"])["linux"]
            assert found["machine"]["cores"] == len(os.sched_getaffinity(0))
            answer = agent.ask(do="check", target="onnx")
            assert "numpy" in answer or "-m pip install" in answer["error"]
            assert agent.ask(do="end") == {"ended": True}
        assert gone(tmp_path)

    def test_python_that_is_too_old(self, tmp_path: Path) -> None:
        newer = load_command(Host("board", folder=str(tmp_path), python=sys.executable), 1)
        import base64

        words = newer.split('"')
        program = base64.b64decode(words[1]).decode().replace("(3, 8)", "(9, 8)")
        command = newer.replace(words[1], base64.b64encode(program.encode()).decode())
        said = subprocess.run(["sh", "-c", command], input=b"", capture_output=True, timeout=ANSWER_S)
        assert "expected 9.8 or newer" in json.loads(said.stdout)["error"]
        assert gone(tmp_path)


class TestConversation:
    def test_measures(self, shipped: Path, tmp_path: Path) -> None:
        place = tmp_path / "with blanks and ' quotes"
        place.mkdir()
        with talking(place) as agent:
            folder = Path(agent.answer()["hello"])
            shutil.copytree(shipped, folder / "0")
            assert set(agent.ask(do="check", target="onnx")) == {"python", "numpy", "onnxruntime"}
            started = agent.ask(do="start", worker=1, subject="0", threads=1, bucket=None)
            assert started["cold_start_ms"] > started["load_ms"] + started["first_run_ms"] > 0
            rounds = {"parity": 16}
            told = agent.ask(do="ask", worker=1, request=rounds, doing="comparing", timeout_s=ANSWER_S)
            assert told["images"] == 16
            assert max(told["max_abs"]) <= DEVICE_TOLERANCE * max(1.0, told["scale"])
            runs = {"runs": 10, "warmup": 2}
            block = agent.ask(do="ask", worker=1, request=runs, doing="running", timeout_s=ANSWER_S)
            assert (len(block["ms"]), len(block["warmup_ms"])) == (10, 2)
            assert block["others_percent"] >= 0
            assert agent.ask(do="close", worker=1) == {}
            assert agent.ask(do="end") == {"ended": True}
        assert gone(place)

    def test_what_it_does_not_know_is_told_and_it_goes_on(self, tmp_path: Path) -> None:
        with talking(tmp_path) as agent:
            agent.answer()
            assert "agent runs: trt, onnx" in agent.ask(do="check", target="abacus")["error"]
            assert "KeyError" in agent.ask(do="dance")["error"]
            assert agent.ask(do="threads", threads=1) == {"threads": 1}
            assert "expected 1 to" in agent.ask(do="threads", threads=10_000)["error"]

    def test_end_of_stdin_ends_it_and_its_workers(self, shipped: Path, tmp_path: Path) -> None:
        place = tmp_path / "device"
        place.mkdir()
        with talking(place) as agent:
            shutil.copytree(shipped, Path(agent.answer()["hello"]) / "0")
            agent.ask(do="start", worker=1, subject="0", threads=1, bucket=None)
            (worker,) = psutil.Process(agent.process.pid).children()
            assert agent.process.stdin is not None
            agent.process.stdin.close()
            assert agent.process.wait(ANSWER_S) == 1
        assert gone(place)
        assert not worker.is_running()

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=["SIGTERM", "SIGHUP"])
    def test_signal(self, number: signal.Signals, tmp_path: Path) -> None:
        with talking(tmp_path) as agent:
            agent.answer()
            agent.process.send_signal(number)
            assert agent.process.wait(ANSWER_S) == 1
        assert gone(tmp_path)

    def test_silence_ends_it(self, tmp_path: Path) -> None:
        place = tmp_path / f"{MARK}0-x-y"
        place.mkdir()
        program = (
            "import sys; from pathlib import Path; from morvit_deploy.agent import supervisor as it; "
            "it.BEAT_S, it.SILENCE_S = 0.1, 0.5; it.Supervisor(Path(sys.argv[1])).run()"
        )
        command = [sys.executable, "-c", program, str(place)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as silent:
            assert silent.wait(ANSWER_S) == 1
        assert gone(tmp_path)

    def test_archive_that_is_cut_off(self, tmp_path: Path) -> None:
        conversation = Conversation(tmp_path, size=len(agent_archive()) + 1)
        said, _ = conversation.process.communicate(timeout=ANSWER_S)
        assert (said, conversation.process.returncode) == (b"", 1)
        assert gone(tmp_path)

    def test_folder_that_is_not_there(self, tmp_path: Path) -> None:
        with talking(tmp_path / "nothing") as agent:
            error = agent.answer()["error"]
        assert "nothing: No such file or directory" in error
        assert "--remote-dir" in error


class TestFolder:
    def test_who_is_removed(self, tmp_path: Path) -> None:
        with subprocess.Popen([sys.executable, "-c", ""]) as ended:
            pass
        own = tmp_path / f"{MARK}{os.getpid()}-{boot_id()}-own"
        stale = [
            f"{MARK}{ended.pid}-{boot_id()}-a",
            f"{MARK}{os.getpid()}-{boot_id()}-reused",
            f"{MARK}1-0-b",
        ]
        foreign = ["morvit-agent-", f"{MARK}x-{boot_id()}-a", "other"]
        for name in (own.name, *stale, *foreign):
            (tmp_path / name).mkdir()
        (tmp_path / f"{MARK}1-0-link").symlink_to(tmp_path / "other")
        assert sweep(own) == len(stale)
        left = {path.name for path in tmp_path.iterdir()}
        assert left == {own.name, *foreign, f"{MARK}1-0-link"}

    def test_an_agent_at_work_keeps_its_folder(self, tmp_path: Path) -> None:
        with talking(tmp_path) as first, talking(tmp_path) as second:
            assert second.answer()["swept"] == first.answer()["swept"] == 0
            assert len([*tmp_path.iterdir()]) == 2

    def test_what_a_killed_one_left_is_removed_on_the_next_contact(self, tmp_path: Path) -> None:
        with talking(tmp_path) as killed:
            killed.answer()
        assert len([*tmp_path.iterdir()]) == 1
        with talking(tmp_path) as agent:
            assert agent.answer()["swept"] == 1


class TestFiles:
    @pytest.mark.parametrize("name", ["/etc/x", "../x", "a/../../x"])
    def test_names_that_leave_the_folder(self, name: str, tmp_path: Path) -> None:
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w") as archive:
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())
        stream.seek(0)
        with pytest.raises(AgentError, match="inside the folder"):
            receive(tmp_path, stream)

    def test_links_are_refused(self, tmp_path: Path) -> None:
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w") as archive:
            link = tarfile.TarInfo("a")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(link)
        stream.seek(0)
        with pytest.raises(AgentError, match="plain files"):
            receive(tmp_path, stream)

    def test_cut_off(self, tmp_path: Path) -> None:
        stream = io.BytesIO()
        write_to({"0/a": b"x" * 5000}, stream, lambda size: None)  # type: ignore[arg-type]
        with pytest.raises(AgentError, match="cut off"):
            receive(tmp_path, io.BytesIO(stream.getvalue()[:3000]))

    def test_disk_that_is_full(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        stream = io.BytesIO()
        write_to({"0/weights.bin": b"x"}, stream, lambda size: None)  # type: ignore[arg-type]
        stream.seek(0)
        monkeypatch.setattr(shutil, "copyfileobj", full)
        with pytest.raises(Lacking, match=r"No space left on device, .* MiB free .*--remote-dir"):
            receive(tmp_path, stream)

    def test_a_file_that_changed_on_its_way(self, shipped: Path) -> None:
        assert read_recipe(shipped).name == "tiny"
        with (shipped / "weights.bin").open("r+b") as file:
            file.write(b"\xff")
        with pytest.raises(Refused, match=r"weights\.bin of tiny did not arrive"):
            read_recipe(shipped)

    def test_recipe_is_plain_json(self, shipped: Path) -> None:
        told = json.loads((shipped / RECIPE).read_text())
        assert told["target"] == "onnx"
        assert set(told["files"]) == {"model.onnx", "weights.bin"}


class TestRuntimes:
    def test_a_runtime_that_is_too_old(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("onnxruntime.__version__", "1.9.2")
        with pytest.raises(
            Lacking, match=r'onnxruntime 1\.9\.2, expected 1\.16 .*pip install numpy "onnxruntime'
        ):
            runtimes.check_runtime("onnx")

    def test_a_bundle_that_requires_a_newer_one(self, shipped: Path) -> None:
        assert Recipe.of(shipped).more["lowest"] == "1.16"
        newer = replace(Recipe.of(shipped), more={"lowest": "99.0"})
        with pytest.raises(Lacking, match=r"tiny requires onnxruntime 99\.0 or newer, got "):
            runtimes.load_runner("onnx")(shipped, newer, 1, None)

    def test_a_runtime_that_is_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
        with pytest.raises(Lacking, match=r"cannot import onnxruntime(?s:.)*pip install"):
            runtimes.check_runtime("onnx")


class TestConditions:
    def test_readers_are_called_by_name(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(conditions.READERS, "board", lambda: {"mode": "15W"})
        found = conditions.read(["linux", "board"])
        assert found["board"] == {"mode": "15W"}
        assert found["linux"]["machine"]["memory_gib"] == pytest.approx(
            psutil.virtual_memory().total / 2**30, abs=0.06
        )
        json.dumps(found, allow_nan=False)

    def test_memory_and_time_are_those_that_psutil_tells(self) -> None:
        resident = psutil.Process().memory_info().rss / 2**20
        assert memory_mib()["resident"] == pytest.approx(resident, rel=0.05)
        own = psutil.Process().cpu_times()
        assert processor.usage(os.getpid()).own_s == pytest.approx(own.user + own.system, abs=0.1)
        now = psutil.cpu_times()
        busy = sum(now) - now.idle - now.iowait - now.guest - now.guest_nice
        assert processor.usage().busy_s == pytest.approx(busy, rel=0.01, abs=1)

    def test_temperatures_and_clocks_of_a_board(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for number, (kind, degrees) in enumerate(
            [("cpu-thermal", "48312\n"), ("cpu-thermal", "-1500"), ("x", "")]
        ):
            zone = tmp_path / f"thermal_zone{number}"
            zone.mkdir()
            (zone / "type").write_text(kind)
            (zone / "temp").write_text(degrees)
        for core, khz in enumerate((1_500_000, 2_400_000)):
            clock = tmp_path / f"cpu{core}" / "cpufreq"
            clock.mkdir(parents=True)
            (clock / "scaling_cur_freq").write_text(f"{khz}\n")
            (clock / "cpuinfo_max_freq").write_text("2400000\n")
            (clock / "scaling_governor").write_text("ondemand\n")
        monkeypatch.setattr(conditions, "_THERMAL", tmp_path)
        monkeypatch.setattr(conditions, "_CPU", tmp_path)
        found = conditions.linux()
        assert found["temperatures_c"] == {"cpu-thermal": 48.312, "cpu-thermal thermal_zone1": -1.5}
        assert found["cpu_mhz"] == {"current": 1950.0, "max": 2400.0, "each": [1500.0, 2400.0]}
        assert found["cpu_governor"] == "ondemand"


class TestParity:
    def compare(self, tmp_path: Path, answers: np.ndarray) -> dict[str, Any]:
        np.save(tmp_path / "pixels.npy", np.zeros((2, 2, 1, 1, 3), np.uint8))
        np.savez(tmp_path / "expected.npz", logits=np.array([[3.0, 1], [0, 1], [5, 0], [1, 0]], np.float32))
        parts = iter(answers.reshape(2, 2, 2))
        model = Model(lambda pixels: {"logits": next(parts)}, ["own"], lambda: None)
        return compared(model, Rounds(str(tmp_path / "pixels.npy")), tmp_path / "expected.npz", 2)

    def test_differences_of_each_image(self, tmp_path: Path) -> None:
        found = self.compare(tmp_path, np.array([[3, 1], [0, 1.5], [5, 6], [np.nan, 0]]))
        assert found["max_abs"] == [0.0, 0.5, 6.0, None]
        assert (found["images"], found["scale"]) == (4, 5.0)
        assert found["same_class"] == 3  # numpy takes NaN for the largest

    @pytest.mark.parametrize(
        ("precision", "gaps", "same", "passes"),
        [
            ("fp32", [0.0, 1e-6, 4e-4], 3, True),
            ("fp32", [0.0, 0.3, 0.0], 2, True),  # one tie in the routing
            ("fp32", [0.3, 0.3, 0.0], 3, False),
            ("fp32", [None, None, 0.0], 3, False),
            ("fp16", [0.3, 0.3, 0.3], 2, True),
            ("fp16", [0.3, 0.3, 0.3], 1, False),
            ("int8", [0.3, None, 0.3], 3, False),
        ],
    )
    def test_judgement(self, precision: str, gaps: list[float | None], same: int, passes: bool) -> None:
        found = {"images": 3, "max_abs": gaps, "scale": 5.0, "same_class": same}
        parity = LogitParity.of("b", "on board", precision, found)
        assert parity.agrees == passes
        if passes:
            assert parity.as_dict()["tolerance"] == 5 * DEVICE_TOLERANCE
        else:
            assert "b returns other logits on board" in parity.problem
