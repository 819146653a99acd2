"""`bench --device-file`: real devices in one report, what drops out, what is refused, and where Ctrl-C leaves it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import refused, run
from loopback import Loopback, needs_sshd, running
from measurements import measured
from tiny_models import make_config

from morvit_deploy.errors import LostError
from morvit_deploy.measuring.core.results import BenchResult
from morvit_deploy.measuring.fleet import fleet
from morvit_deploy.remote import session

QUICK = ("--threads", "1", "--runs", "10", "--blocks", "2", "--warmup", "1", "--starts", "1")
DESK = '[[device]]\nname = "desk"\nkind = "cpu"\n'
SOON_S = 60.0


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Loopback]:
    """A running server; `device` in its folder is for the agent."""
    with running(tmp_path) as server:
        yield server


@pytest.fixture
def other(exported: Callable[..., Path]) -> Path:
    """Another bundle to compare with."""
    return exported(make_config(), seed=1, with_depth=True)


def at(board: Loopback, name: str = "board", **changes: str) -> str:
    """The board's table in a device file."""
    keys = {
        "host": "board", "ssh-config": str(board.folder / "ssh_config"),
        "remote-dir": str(board.folder / "device"), "python": sys.executable,
    } | changes  # fmt: skip  # a table
    return f'[[device]]\nname = "{name}"\nkind = "ssh"\n' + "".join(
        f'{key} = "{value}"\n' for key, value in keys.items()
    )


def listed(tmp_path: Path, *tables: str) -> Path:
    path = tmp_path / "devices.toml"
    path.write_text("\n".join(tables))
    return path


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, BaseException | None]], None]:
    """Devices, by kind, that return a result at once, or fail."""

    def play(fates: dict[str, BaseException | None]) -> None:
        def bench(folders: Any, *, device: str, **how: Any) -> BenchResult:
            if (error := fates.get(device)) is not None:
                raise error
            lanes = tuple(measured((1.0, 1.1), bundle=str(folder)) for folder in folders)
            return BenchResult(device, lanes, {"parity": {"x": {}}})

        monkeypatch.setattr(fleet, "bench", bench)

    return play


@needs_sshd
@pytest.mark.parametrize("at_once", [(), ("--at-once",)], ids=["in turn", "at once"])
def test_this_machine_a_board_and_one_that_there_is_not(
    board: Loopback, tiny_bundle: Path, other: Path, tmp_path: Path, at_once: tuple[str, ...]
) -> None:
    """A server that takes the connection and says nothing stands for a board that hangs."""
    out, page, again = tmp_path / "fleet.json", tmp_path / "fleet.html", tmp_path / "again.html"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        mute = f'ssh-option = ["Port={silent.getsockname()[1]}", "ConnectTimeout=1"]\n'
        file = listed(
            tmp_path, DESK, at(board), at(board, "hung") + mute, at(board, "none", host="no.invalid")
        )
        words = ("bench", tiny_bundle, "--against", other, "--device-file", file, "-o", out, "--report", page)
        ended = run(*words, *at_once, *QUICK)
    assert ended.exit_code == 1, ended.output
    for said in ("board: block 1 of 2", "desk: block 1 of 2", "error: 2 of 4 devices dropped out:"):
        assert said in ended.stderr
    assert "  - hung: board does not answer" in ended.stderr and "  - none: there is no host" in ended.stderr
    found = json.loads(out.read_text())
    assert [one["state"] for one in found["devices"]] == ["measured"] * 2 + ["not measured"] * 2
    assert [row["device"] for row in found["rows"]] == ["desk", "desk", "board", "board", "hung", "none"]
    assert all(row["parity"] for row in found["rows"][:4])
    assert len(found["devices"][1]["result"]["bundles"][1]["blocks"]) == 2
    assert not [path for path in (board.folder / "device").iterdir() if path.name.startswith("morvit")]
    text = page.read_text().replace("\u00a0", " ")
    for part in (
        "<svg class=chart",
        "board: conditions</h2>",
        "does not answer",
        "parity ok",
        "To repeat it</h2>",
    ):
        assert part in text
    assert run("report", out, "-o", again).exit_code == 0
    assert again.read_text().count("<tr>") == page.read_text().count("<tr>")


@needs_sshd
def test_a_board_that_is_lost_keeps_its_blocks(
    board: Loopback, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server goes away in the middle, and this machine is measured all the same."""
    from morvit_deploy.measuring.board.bench import RemoteProcesses

    own, blocks = RemoteProcesses.run, list[int]()

    def pull(self: Any, *given: Any) -> Any:
        blocks.append(1)
        if len(blocks) == 2:
            board.kill()
        return own(self, *given)

    monkeypatch.setattr(RemoteProcesses, "run", pull)
    monkeypatch.setattr(session, "RECONNECT_S", 2.0)  # nobody comes back
    out = tmp_path / "fleet.json"
    ended = run("bench", tiny_bundle, "--device-file", listed(tmp_path, at(board), DESK), "-o", out, *QUICK)
    assert ended.exit_code == 1
    lost, desk = json.loads(out.read_text())["devices"]
    assert (lost["state"], desk["state"]) == ("partial", "measured")
    assert "was lost" in lost["reason"] and len(lost["result"]["bundles"][0]["blocks"]) == 1
    assert "parity ok, then: board was lost" in " ".join(ended.stdout.split())


def test_all_drop_out(
    tiny_bundle: Path, tmp_path: Path, played: Callable[[dict[str, BaseException | None]], None]
) -> None:
    played({"cpu": LostError("it is gone"), "ssh": OSError(28, "No space left on device")})
    file = listed(tmp_path, DESK, '[[device]]\nname = "pi"\nkind = "ssh"\nhost = "pi"')
    out = tmp_path / "fleet.json"
    ended = run("bench", tiny_bundle, "--device-file", file, "-o", out)
    assert ended.exit_code == 1 and "No device was measured." in ended.stdout
    assert "error: 2 of 2 devices dropped out" in ended.stderr and "Traceback" not in ended.output
    assert [one["state"] for one in json.loads(out.read_text())["devices"]] == ["not measured"] * 2


def test_all_measured_is_status_0_and_one_json_document(
    tiny_bundle: Path, tmp_path: Path, played: Callable[[dict[str, BaseException | None]], None]
) -> None:
    played({})
    ended = run("bench", tiny_bundle, "--device-file", listed(tmp_path, DESK), "--json")
    assert ended.exit_code == 0
    assert json.loads(ended.stdout)["rows"][0]["device"] == "desk"


def test_ctrl_c_writes_what_was_measured(
    tiny_bundle: Path, tmp_path: Path, played: Callable[[dict[str, BaseException | None]], None]
) -> None:
    played({"ssh": KeyboardInterrupt()})
    pi = '[[device]]\nname = "pi"\nkind = "ssh"\nhost = "pi"'
    out, page = tmp_path / "fleet.json", tmp_path / "fleet.html"
    ended = run(
        "bench", tiny_bundle, "--device-file", listed(tmp_path, DESK, pi), "-o", out, "--report", page
    )
    assert ended.exit_code == 130 and "Traceback" not in ended.output
    found = json.loads(out.read_text())
    assert found["interrupted"] and [one["reason"] for one in found["devices"]] == [None, "interrupted"]
    assert "Ctrl-C ended it early." in page.read_text().replace("\u00a0", " ")
    late = tmp_path / "late.json"
    ended = run("bench", tiny_bundle, "--device-file", listed(tmp_path, pi, DESK), "-o", late)
    assert ended.exit_code == 130 and not late.exists() and ended.stdout == "", "nothing was measured"


@needs_sshd
@pytest.mark.slow
def test_ctrl_c_for_real_ends_boards_that_are_measured_at_once(
    board: Loopback, tiny_bundle: Path, tmp_path: Path
) -> None:
    """The signal comes while a thread measures: the agent's folder is removed, and the command ends soon."""
    file = listed(tmp_path, at(board), DESK)
    script = "from morvit_deploy.cli import main; main()"
    words = ("bench", tiny_bundle, "--device-file", file, "--at-once", "--runs", "10", "--blocks", "10000")
    command = [sys.executable, "-c", script, *map(str, words)]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "block 1 of 10000" in line:
                break
        begun = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=SOON_S)
    assert process.returncode == 130 and "interrupted" in rest and "Traceback" not in rest
    assert time.monotonic() - begun < SOON_S
    assert not [path for path in (board.folder / "device").iterdir() if path.name.startswith("morvit")]


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("--device", "ssh", "--host", "pi"), "--device, --host: for one device; write it into its table of"),
        (("--ssh-option", "Port=1"), "--ssh-option: for one device"),
        (("--listen", "--port", "8000"), "--listen, --port: for one device"),
        (("--tf32",), "--tf32: for one device"),
        (("--phone", "mine"), "--phone: for one device; run `bench` on it alone"),
        (("--emit-project", "x"), "--emit-project: for one device"),
        (("--profile",), "--profile: for one device; run `bench` on it alone"),
        (("--verdict", "--checkpoint", "x"), "--verdict: for one device"),
        (("--baseline", "x.json"), "--baseline: for one device"),
        (("--checkpoint", "x"), "are for --verdict"),
        (("--max-slower", "5%"), "--max-slower is for --baseline"),
    ],
    ids=str,
)
def test_options_of_one_device(
    tiny_bundle: Path, tmp_path: Path, words: tuple[str, ...], problem: str
) -> None:
    assert problem in refused("bench", tiny_bundle, "--device-file", listed(tmp_path, DESK), *words)


def test_files_that_cannot_be_used(tiny_bundle: Path, tmp_path: Path) -> None:
    def problem(file: Path, *words: object) -> str:
        return refused("bench", tiny_bundle, "--device-file", file, *words)

    assert "--at-once is for --device-file" in refused("bench", tiny_bundle, "--at-once")
    assert "cannot read" in problem(tmp_path / "nothing.toml")
    assert "got two devices called 'desk'" in problem(listed(tmp_path, DESK, DESK))
    assert "did you mean 'threads'?" in problem(listed(tmp_path, DESK + "thread = 1"))
    file = listed(tmp_path, DESK)
    assert "expected .html or .md" in problem(file, "--report", "x.pdf")
    assert "is an input" in problem(file, "-o", file, "--force")
    assert file.read_text() == DESK


def test_an_existing_output_is_kept_and_only_ours_is_replaced(
    tiny_bundle: Path, tmp_path: Path, played: Callable[[dict[str, BaseException | None]], None]
) -> None:
    played({})
    out, other = tmp_path / "fleet.json", tmp_path / "bench.json"
    words = ("bench", tiny_bundle, "--device-file", listed(tmp_path, DESK), "-o")
    assert run(*words, out).exit_code == 0
    assert "--force" in refused(*words, out)
    assert run(*words, out, "--force").exit_code == 0
    other.write_text('{"format": "morvit-bench/1"}')
    assert "holds something else" in refused(*words, other, "--force")
    assert "expected a result of `bench -o`, with a list of bundles" in refused(
        "bench", tiny_bundle, "--baseline", out
    )


def test_help_says_what_a_dropped_device_does() -> None:
    text = " ".join(run("bench", "--help").stdout.split())
    assert "Exit status 1 if a device drops out, after the others were measured." in text
    assert "Ctrl-C ends it and keeps the devices that were measured." in text
