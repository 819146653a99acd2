"""Benchmarks over SSH against an sshd of our own on loopback. Nothing is timed here but what must not hang."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import loopback
import pytest
from bucket_plans import EXPERT, threshold_ladder
from lanes import when
from loopback import Loopback, needs_sshd, running
from shipped_bundles import gone
from tiny_models import make_config
from typer.testing import CliRunner, Result

from morvit_deploy.agent.folder import MARK
from morvit_deploy.cli import app
from morvit_deploy.errors import ConfigError, LostError, ParityError, TargetError
from morvit_deploy.measuring.bench import bench
from morvit_deploy.measuring.board import bench as remote_bench
from morvit_deploy.measuring.core.results import BenchResult
from morvit_deploy.measuring.cpu.lanes import BundleProcesses
from morvit_deploy.remote import dialogue, session
from morvit_deploy.remote.connection import Connection
from morvit_deploy.remote.host import Host
from morvit_deploy.remote.loader import agent_archive
from morvit_deploy.timing.loop import MIN_RUNS

pytestmark = needs_sshd

QUICK: dict[str, Any] = {"threads": 1, "runs": MIN_RUNS, "blocks": 2, "warmup": 1, "starts": 1}
QUICK_WORDS = ("--threads", "1", "--runs", "10", "--blocks", "2", "--warmup", "1", "--starts", "1")
MOST_S = 30.0  # from a lost network to the end of the command


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Loopback]:
    """A running server whose folders have a blank in their names; `device` in it is for the agent."""
    with running(tmp_path) as server:
        yield server


@pytest.fixture
def other_target(copied_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle that says it is for another target; its files are never opened."""
    monkeypatch.setenv("MORVIT_TARGETS", "other_target:OTHER")
    place = copied_bundle / "manifest.json"
    manifest = json.loads(place.read_text())
    place.write_text(json.dumps(manifest | {"target": "other", "target_form": {}}))
    return copied_bundle


def at(board: Loopback, **changes: Any) -> Host:
    """The board with this Python, and a folder of its own for the agent."""
    return board.host(**{"folder": str(board.folder / "device"), "python": sys.executable} | changes)


def measure(board: Loopback, bundle: Path, **options: Any) -> BenchResult:
    host = options.pop("host", None) or at(board)
    return bench(bundle, device="ssh", host=host, **QUICK | options)


def refused(board: Loopback, host: Host | None = None) -> str:
    """The message of a connection that does not come about."""
    with pytest.raises(TargetError) as error:
        Connection(host or board.host())
    return str(error.value)


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["bench", *map(str, arguments)])


def reach(board: Loopback) -> list[str]:
    """The options of the command line for the board."""
    return [
        *("--device", "ssh", "--host", "board", "--ssh-config", str(board.folder / "ssh_config")),
        *("--remote-dir", str(board.folder / "device"), "--python", sys.executable),
    ]


class TestMeasurement:
    def test_as_here(self, board: Loopback, tiny_bundle: Path) -> None:
        there = measure(board, tiny_bundle).as_dict()
        here = bench(tiny_bundle, **QUICK).as_dict()
        (ours,), (theirs,) = here["bundles"], there["bundles"]
        assert set(ours) == set(theirs)
        same = ("bundle", "macs", "batch", "file_bytes", "inputs_digest", "precision")
        assert [ours[name] for name in same] == [theirs[name] for name in same]
        assert [len(block["ms"]) for block in theirs["blocks"]] == [MIN_RUNS] * 2
        assert set(here["conditions"]) <= set(there["conditions"])
        assert there["device"] == "ssh"
        assert "partial" not in there
        assert gone(board.folder / "device")

    def test_conditions_are_the_device_s_before_and_after(self, board: Loopback, tiny_bundle: Path) -> None:
        known = measure(board, tiny_bundle).conditions
        assert known["host"] == "board"
        assert set(known["device_conditions"]) == {"before", "after"}
        assert known["machine"] == known["device_conditions"]["after"]["linux"]["machine"]
        assert {"python", "numpy", "onnxruntime"} <= set(known["versions"])
        parity = known["parity"][str(tiny_bundle)]
        assert (parity["images"], parity["class_flips"], parity["apart"]) == (16, 0, 0)

    @pytest.mark.slow
    @pytest.mark.parametrize("dispatch", ["graph", "host"])
    def test_a_bundle_that_chooses_buckets(
        self, board: Loopback, exported: Callable[..., Path], dispatch: str
    ) -> None:
        ladder = threshold_ladder()
        measured = measure(board, exported(EXPERT, plan=ladder, dispatch=dispatch)).measured[0]
        assert measured.mix is not None
        mix = measured.mix.as_dict()
        assert set(mix["buckets"]) == {bucket.name for bucket in ladder.buckets}
        assert mix["misprediction"]["ms"] is not None
        assert len(mix["orders"]["changing_blocks"]) == 2

    def test_several_bundles_and_a_batch(self, board: Loopback, exported: Callable[..., Path]) -> None:
        bundle = exported(make_config(), batch="dynamic", input="float")
        result = bench([bundle, bundle], device="ssh", host=at(board), batch=3, **QUICK)
        assert [one.batch for one in result.measured] == [3, 3]
        assert len(result.ratios[0].per_block) == 2

    def test_other_answers_are_not_measured(
        self, board: Loopback, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        expected = remote_bench.pack

        def falsified(*subject: Any) -> Any:
            import io

            import numpy as np

            sent = dict(expected(*subject))
            stored = io.BytesIO()
            with np.load(io.BytesIO(sent["0/expected.npz"])) as logits:  # type: ignore[arg-type]
                np.savez(stored, logits=logits["logits"] + 0.01)
            return sent | {"0/expected.npz": stored.getvalue()}

        monkeypatch.setattr(remote_bench, "pack", falsified)
        with pytest.raises(ParityError, match="returns other logits on board"):
            measure(board, tiny_bundle)
        assert gone(board.folder / "device")

    def test_a_shell_that_talks(self, board: Loopback, tiny_bundle: Path) -> None:
        chatty = board.folder / "chatty"
        chatty.write_text(f'#!/bin/sh\necho "Welcome!"\necho 17\nexec "{sys.executable}" "$@"\n')
        chatty.chmod(0o755)
        assert measure(board, tiny_bundle, host=at(board, python=str(chatty))).measured

    def test_jump_host_and_master_of_the_user_s_own(
        self, board: Loopback, tiny_bundle: Path, tmp_path: Path
    ) -> None:
        config = tmp_path / "ssh_config"  # ssh itself does not hand a path with blanks to a jump host's ssh
        own = f'  ControlMaster auto\n  ControlPath "{board.folder}/c-%C"\n  ControlPersist 60\n'
        inner = board.config("user_key").replace("Host board", "Host inner") + "  ProxyJump board\n" + own
        config.write_text(board.config("user_key") + inner)
        host = Host("inner", config=config, folder=str(board.folder / "device"), python=sys.executable)
        assert measure(board, tiny_bundle, host=host).conditions["host"] == "inner"
        assert not [*board.folder.glob("c-*")], "a connection of our own, that ends with the measurement"

    def test_nothing_outlives_a_killed_command(
        self, board: Loopback, tiny_bundle: Path, tmp_path: Path
    ) -> None:
        program = (
            "import os, signal, sys; from morvit_deploy.cli import app; "
            "from morvit_deploy.measuring.cpu.lanes import BundleProcesses; "
            "BundleProcesses.run = lambda *_: os.kill(os.getpid(), signal.SIGKILL); "
            "app(['bench', *sys.argv[1:]])"
        )
        words = [str(tiny_bundle), *reach(board), *QUICK_WORDS]
        environment = {**os.environ, "TMPDIR": str(tmp_path)}  # for what a killed process leaves here
        ended = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, env=environment)
        assert ended.returncode == -signal.SIGKILL, ended.stderr
        assert gone(board.folder / "device")
        assert board.quiet()


class TestRefusals:
    def test_unknown_host_key_is_shown_and_never_accepted(self, board: Loopback) -> None:
        known_hosts = board.folder / "known_hosts"
        known_hosts.write_text("")
        message = refused(board)
        asked = ["ssh-keygen", "-lf", str(board.folder / "host_key.pub")]
        fingerprint = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()[1]
        assert fingerprint.startswith("SHA256:")
        assert fingerprint in message
        assert f"ssh -F '{board.folder}/ssh_config' board" in message
        assert known_hosts.read_text() == ""

    def test_options_cannot_weaken_that(self, board: Loopback) -> None:
        known_hosts = board.folder / "known_hosts"
        known_hosts.write_text("")
        loose = board.host(options=("StrictHostKeyChecking=no", "BatchMode=no"))
        assert "never accepted silently" in refused(board, loose)
        assert known_hosts.read_text() == ""

    def test_host_key_that_changed(self, board: Loopback) -> None:
        board.kill()
        board.make_key("host_key")
        board.start()
        message = refused(board)
        assert "differs from the known one" in message
        assert f"{board.folder / 'known_hosts'}, line 1" in message
        assert "SHA256:" in message

    def test_wrong_port(self, board: Loopback) -> None:
        other = board.host(options=(f"Port={loopback.free_port()}",))
        assert "refuses the connection" in refused(board, other)

    def test_no_such_host(self, board: Loopback) -> None:
        nobody = Host("nobody.invalid", config=board.folder / "ssh_config")
        assert "no host of that name: nobody.invalid" in refused(board, nobody)

    def test_nobody_answers(self, board: Loopback) -> None:
        """A server that takes the connection and says nothing."""
        import socket

        with socket.create_server(("127.0.0.1", 0)) as silent:
            mute = board.host(options=(f"Port={silent.getsockname()[1]}", "ConnectTimeout=1"))
            assert "does not answer" in refused(board, mute)

    def test_key_that_is_not_accepted(self, board: Loopback) -> None:
        (board.folder / "ssh_config").write_text(board.config("other_key"))
        message = refused(board)
        assert "ssh-copy-id -F" in message
        assert "this tool does not ask for passwords" in message

    def test_server_that_wants_a_password(self, tmp_path: Path) -> None:
        server = Loopback(tmp_path, lines=["PubkeyAuthentication no", "PasswordAuthentication yes"])
        server.start()
        try:
            message = refused(server)
        finally:
            server.kill()
        assert "it offers: password" in message
        assert "ssh-copy-id" in message

    def test_option_that_there_is_not(self, board: Loopback) -> None:
        assert "rejects its options" in refused(board, board.host(options=("Speed=9",)))

    @pytest.mark.parametrize(
        "wrong", [{"address": "-oProxyCommand=x"}, {"address": " "}, {"options": ("Port",)}], ids=str
    )
    def test_hosts_that_are_none(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(ConfigError, match="got"):
            Host(**{"address": "board"} | wrong)

    def test_no_python(self, board: Loopback, tiny_bundle: Path) -> None:
        with pytest.raises(TargetError, match=r"no python9 on board; .*--python"):
            measure(board, tiny_bundle, host=at(board, python="python9"))

    def test_python_without_the_runtime(self, board: Loopback, tiny_bundle: Path) -> None:
        bare = board.folder / "bare"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
        with pytest.raises(TargetError, match=r'cannot import numpy(?s:.)*-m pip install numpy "onnxruntime'):
            measure(board, tiny_bundle, host=at(board, python=str(bare / "bin" / "python")))
        assert gone(board.folder / "device")

    def test_folder_that_is_not_there(self, board: Loopback, tiny_bundle: Path) -> None:
        with pytest.raises(TargetError, match=r"/nothing: No such file"):
            measure(board, tiny_bundle, host=at(board, folder="/nothing"))

    def test_full_disk(self, board: Loopback, tiny_bundle: Path) -> None:
        device = board.folder / "device"
        room = len(agent_archive()) + (32 << 10)  # for the agent, and not for what it measures
        options = ["mount", "-t", "tmpfs", "-o", f"size={room}", "tmpfs", str(device)]
        mounted = subprocess.run(options, capture_output=True, text=True)
        if mounted.returncode:
            pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
        try:
            with pytest.raises(TargetError, match=r"No space left on device, .* MiB free .*--remote-dir"):
                measure(board, tiny_bundle)
            assert gone(device)
            (device / "filler").write_bytes(b"x" * (80 << 10))
            with pytest.raises(TargetError, match="cannot hold the agent"):
                measure(board, tiny_bundle)
            assert [path.name for path in device.iterdir()] == ["filler"]
        finally:
            subprocess.run(["umount", str(device)], check=True)

    def test_threads_are_the_device_s(self, board: Loopback, tiny_bundle: Path) -> None:
        with pytest.raises(TargetError, match="10000 threads"):
            measure(board, tiny_bundle, threads=10_000)

    def test_bundle_for_another_target(self, board: Loopback, other_target: Path) -> None:
        message = run(other_target, *reach(board)).stderr
        assert "is for other, and --device ssh runs onnx; export it with --target onnx" in " ".join(
            message.split()
        )


class TestLoss:
    @pytest.mark.slow
    def test_killed_server_in_the_middle(
        self, board: Loopback, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lost: list[float] = []

        def pull() -> None:
            lost.append(time.monotonic())
            board.kill()

        monkeypatch.setattr(BundleProcesses, "run", when(2, pull))
        ended = run(tiny_bundle, *reach(board), "-o", tmp_path / "kept.json", *QUICK_WORDS)
        assert time.monotonic() - lost[0] < MOST_S
        assert ended.exit_code == 1
        assert ended.stderr.count("error:") == 1
        assert "board was lost while running" in ended.stderr
        assert "Traceback" not in ended.stderr
        kept = json.loads((tmp_path / "kept.json").read_text())
        assert "refuses the connection" in kept["partial"]
        assert [len(block["ms"]) for block in kept["bundles"][0]["blocks"]] == [MIN_RUNS]
        assert gone(board.folder / "device"), "the agent notices that nobody listens"
        assert not [*Path("/tmp").glob(f"morvit-ssh-{os.getpid()}-*")]

    @pytest.mark.slow
    def test_dead_network(self, board: Loopback, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nothing is closed and nothing answers, as when a cable is pulled."""
        lost: list[float] = []

        def freeze() -> None:
            lost.append(time.monotonic())
            board.signal(signal.SIGSTOP)

        monkeypatch.setattr(BundleProcesses, "run", when(2, freeze))
        with pytest.raises(LostError) as error:
            measure(board, tiny_bundle)
        assert time.monotonic() - lost[0] < MOST_S
        assert len(error.value.partial.measured[0].blocks) == 1

    def test_a_drop_is_mended(
        self, board: Loopback, exported: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(BundleProcesses, "run", when(2, board.drop))
        result = measure(board, exported(EXPERT, plan=threshold_ladder(), dispatch="host"))
        assert len(result.measured[0].blocks) == 2
        assert len(result.conditions["drops"]) == 1
        assert any("the connection was lost" in warning for warning in result.warnings)
        assert gone(board.folder / "device")

    def test_a_mix_keeps_what_is_whole(
        self, board: Loopback, exported: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from morvit_deploy.measuring.cpu.mix import MixRuns

        both, calls = MixRuns._both, []

        def fragile(*arguments: Any) -> None:
            calls.append(1)
            if len(calls) == 7:  # in the middle of the second round of five
                board.kill()
            both(*arguments)

        monkeypatch.setattr(MixRuns, "_both", fragile)
        monkeypatch.setattr(session, "RECONNECT_S", 2.0)  # nobody comes back; others wait as long as users do
        with pytest.raises(LostError) as error:
            measure(board, exported(EXPERT, plan=threshold_ladder(), dispatch="host"))
        (kept,) = error.value.partial.as_dict()["bundles"]
        assert len(kept["blocks"]) == 2
        assert {len(bucket["alone_blocks"]) for bucket in kept["mix"]["buckets"].values()} == {1}

    def test_a_device_that_starts_anew(
        self, board: Loopback, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from morvit_deploy.remote.session import Session

        opened = Session._open

        def rebooted(this: Session, timeout_s: float) -> None:
            opened(this, timeout_s)
            if this.drops:
                this._boots = (*this._boots[:-1], "another")

        monkeypatch.setattr(Session, "_open", rebooted)
        monkeypatch.setattr(BundleProcesses, "run", when(2, board.drop))
        with pytest.raises(LostError, match="restarted during the measurement") as error:
            measure(board, tiny_bundle)
        assert len(error.value.partial.measured[0].blocks) == 1
        assert gone(board.folder / "device")

    @pytest.mark.slow
    def test_a_killed_agent_and_what_it_left(
        self, board: Loopback, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        device = board.folder / "device"

        def kill() -> None:
            (folder,) = device.iterdir()
            os.kill(int(folder.name[len(MARK) :].split("-")[0]), signal.SIGKILL)

        with monkeypatch.context() as patched:
            patched.setattr(BundleProcesses, "run", when(2, kill))
            with pytest.raises(LostError, match="the agent on board ended while running") as error:
                measure(board, tiny_bundle)
        assert len(error.value.partial.measured[0].blocks) == 1
        assert [*device.iterdir()]
        assert measure(board, tiny_bundle).conditions["agent"]["swept"] == 1
        assert gone(device)

    def test_interruption(self, board: Loopback, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupt() -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(BundleProcesses, "run", when(2, interrupt))
        with pytest.raises(KeyboardInterrupt):
            measure(board, tiny_bundle)
        assert gone(board.folder / "device")

    @pytest.mark.slow
    def test_no_sign_of_life(
        self, board: Loopback, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The network is there, the agent hangs."""

        hanging: list[int] = []

        def hang() -> None:
            (folder,) = (board.folder / "device").iterdir()
            hanging.append(int(folder.name[len(MARK) :].split("-")[0]))
            os.kill(hanging[0], signal.SIGSTOP)

        monkeypatch.setattr(dialogue.Dialogue.reply, "__kwdefaults__", {"silent_s": 6.0})
        monkeypatch.setattr(BundleProcesses, "run", when(2, hang))
        try:
            result = measure(board, tiny_bundle)
        finally:
            os.kill(hanging[0], signal.SIGKILL)
        assert "no sign of life for 6 s" in result.conditions["drops"][0]


class TestCommand:
    def test_tables(self, board: Loopback, tiny_bundle: Path) -> None:
        ended = run(tiny_bundle, *reach(board), *QUICK_WORDS)
        assert ended.exit_code == 0, ended.stderr
        assert "ssh: " in ended.stdout
        assert "Warm latency" in ended.stdout

    @pytest.mark.parametrize(
        ("words", "what"),
        [
            (["--device", "cpu", "--host", "board"], "--device cpu is this machine"),
            (["--device", "ssh"], "give it with --host"),
            (["--remote-dir", "/tmp"], "--remote-dir say how to reach --host"),
            (["--device", "ssh", "--host", "board", "--ssh-config", "/nothing"], "/nothing is not a file"),
            (["--device", "ssh", "--host", "board", "--verdict"], "this is measured on: cpu"),
        ],
        ids=["host for cpu", "no host", "options without host", "no config", "verdict"],
    )
    def test_options_that_do_not_fit(self, tiny_bundle: Path, words: list[str], what: str) -> None:
        ended = run(tiny_bundle, *words)
        assert ended.exit_code == 2
        assert what in ended.stderr
