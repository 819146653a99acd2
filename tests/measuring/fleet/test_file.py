"""A device file: the keys of each kind are the options of `bench`, and everything else is refused by name."""

from __future__ import annotations

import contextlib
import re
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mutations import bytes_of
from places import ROOT

from morvit_deploy.cli.fleet.devices import keys_of, read_devices
from morvit_deploy.cli.shared.bench_options import Browsing, Timing
from morvit_deploy.cli.shared.ssh import Ssh
from morvit_deploy.errors import ConfigError, MorvitError
from morvit_deploy.measuring.core.devices import DEVICES
from morvit_deploy.measuring.fleet.device import HERE, FleetDevice, keywords_of, kinds

GOOD = """
[[device]]
name = "desk"
kind = "cpu"
threads = 2

[[device]]
name = "pi"
kind = "ssh"
host = "pi@pi.local"
ssh-option = ["Port=2222"]
remote-dir = "/data"

[[device]]
name = "phone"
kind = "browser"
listen = true
port = 8000
backend = "webgpu"
"""


def read(tmp_path: Path, text: str | bytes, timing: Timing | None = None) -> dict[str, FleetDevice]:
    path = tmp_path / "devices.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_devices(path, timing or Timing())


def device(*lines: str, name: str = "a", kind: str = "cpu") -> str:
    return "\n".join(["[[device]]", f'name = "{name}"', f'kind = "{kind}"', *lines, ""])


def test_the_devices_with_their_options(tmp_path: Path) -> None:
    desk, pi, phone = read(tmp_path, GOOD, Timing(threads=1, blocks=3)).values()
    assert (desk.kind, desk.keywords["threads"], desk.keywords["blocks"]) == ("cpu", 2, 3), "its own go first"
    assert pi.host is not None and pi.keywords["threads"] == 1
    assert (pi.host.address, pi.host.options, pi.host.folder) == ("pi@pi.local", ("Port=2222",), "/data")
    assert phone.browser.listen and (phone.browser.port, phone.browser.backend) == (8000, "webgpu")
    assert [one.machine for one in (desk, pi, phone)] == [HERE, "pi.local", "the browser of phone"]


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "boards.cfg").write_text("Host pi\n")
    (pi,) = read(tmp_path, device('host = "pi"', 'ssh-config = "boards.cfg"', kind="ssh")).values()
    assert pi.host is not None and pi.host.config == tmp_path / "boards.cfg"


def test_keys_are_the_options_of_the_command_line() -> None:
    ssh, browsing = ({one.name.replace("_", "-") for one in fields(group)} for group in (Ssh, Browsing))
    timing = {"runs", "blocks", "warmup", "starts", "threads"}
    assert {*keys_of("cpu")} == timing
    assert {*keys_of("ssh")} == {*keys_of("jetson")} == timing | ssh
    assert {*keys_of("browser")} == timing | browsing
    assert {*keys_of("cuda")} == timing - {"starts", "threads"} | {"tf32"}
    assert all(name not in DEVICES[kind].lacks for kind in kinds() for name in keywords_of(kind))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "got no device, expected one or more"),
        ("# nothing\n", "got no device, expected one or more"),
        ("device = []", "got no device"),
        ("[device]\nname = 'a'", "got one table `[device]`, expected `[[device]]` for each device"),
        ("device = [1]", "expected `[[device]]` for each device"),
        ("[[devices]]\nname = 'a'", "got unknown key 'devices'; did you mean 'device'?"),
        ("threads = 2\n" + device(), "got unknown key 'threads'"),
        ("[[device]\n", "devices.toml is no TOML"),
        ("{}", "is no TOML"),
        (b"\xff\xfe[", "is no TOML"),
        ("a = " + "[" * 20_000, "is no TOML (nested too deeply)"),
        (device() + "#" * 1_000_001, "got more than 1,000,000 bytes"),
        (device("threads = 1", "threads = 2"), "is no TOML"),
        ("[[device]]\nkind = 'cpu'", "device 1: got name None"),
        ("[[device]]\nname = 3\nkind = 'cpu'", "device 1: got name 3"),
        (device(name="a b"), "name: got 'a b', expected a letter"),
        (device(name=""), "name: got ''"),
        (device(name="a" * 31), "expected a letter and at most 29 further"),
        ("[[device]]\nname = 'a'", "device 'a': got kind None, expected one of cpu, cuda, jetson, ssh, browser"),
        (device(kind="sssh"), "got device 'sssh'"),
        (device(kind="raspberrypi"), "did you mean 'ssh'?"),
        (device(kind="iphone"), "measures one bundle at a time, in a run of its own: `bench --device iphone`"),
        (device() + device(), "got two devices called 'a'; give each a name of its own"),
        (device("thread = 1"), "device 'a' (cpu): got unknown key 'thread'; did you mean 'threads'?"),
        (device("zzz = 1"), "got unknown key 'zzz'; the keys are runs, blocks, warmup, starts, threads"),
        (device('images = "photos"'), "got unknown key 'images'"),
        (device('host = "pi"'), "'host' is for devices of kind jetson or ssh; leave it out"),
        (device("listen = true", 'host = "pi"', kind="ssh"), "'listen' is for devices of kind browser"),
        (device("threads = 2", kind="cuda"), "device 'a' (cuda): 'threads' is for devices of kind cpu or"),
        (device("threads = true"), "threads: got True, expected a whole number"),
        (device("threads = 1.5"), "threads: got 1.5, expected a whole number"),
        (device('threads = "2"'), "threads: got '2', expected a whole number"),
        (device("runs = 9"), "runs: got 9, expected at least 10"),
        (device(f"runs = {10**30}"), f"runs: got {10**30}, expected at most 2147483647"),
        (device("port = 70000", kind="browser"), "port: got 70000, expected at most 65535"),
        (device("listen = 1", kind="browser"), "listen: got 1, expected true or false"),
        (device('backend = "gpu"', kind="browser"), "backend: got 'gpu', expected one of wasm, webgpu"),
        (device('browser = "chromium"', "listen = true", kind="browser"), "--listen and --certificate are for"),
        (device(kind="ssh"), "--device ssh is reached over SSH; give it with --host"),
        (device('host = ""', kind="ssh"), "--host: got ''"),
        (device('host = "-oProxyCommand=x"', kind="ssh"), "--host: got '-oProxyCommand=x'"),
        (device("host = 3", kind="ssh"), "host: got 3, expected text"),
        (device('host = "pi\\u0000"', kind="ssh"), "expected text without control characters"),
        (device('host = "pi"', 'ssh-option = ["A=\\n1"]', kind="ssh"), "expected text without control characters"),
        (device("threads = " + "9" * 5000), "is no TOML"),
        (device("threads = 1979-05-27"), "expected a whole number"),
        (device("threads.x = 1"), "expected a whole number"),
        ("[[device.x]]\nname = 'a'", "got one table"),
        (device('host = "pi"', 'ssh-option = "Port=1"', kind="ssh"), "expected a list, as in [\"Port=1\"]"),
        (device('host = "pi"', 'ssh-option = ["Port"]', kind="ssh"), "--ssh-option: got 'Port'"),
        (device('host = "pi"', 'ssh-config = "no"', kind="ssh"), "no is not a file"),
        (device('ssh-option = ["Port=1"]', kind="ssh"), "--ssh-option say how to reach --host"),
    ],
)  # fmt: skip  # a table
def test_what_is_no_device_file(tmp_path: Path, text: str | bytes, problem: str) -> None:
    with pytest.raises(MorvitError) as error:
        read(tmp_path, text)
    assert problem in str(error.value)
    assert "devices.toml" in str(error.value) and error.value.exit_status == 2


@given(data=st.data())
@settings(max_examples=200)
def test_a_damaged_file_is_refused_or_read(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.getbasetemp()
    with contextlib.suppress(MorvitError):
        assert read(folder, data.draw(bytes_of(GOOD.encode())))


def test_a_jetson_may_be_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = device('python = "/usr/bin/python3"', kind="jetson")
    with pytest.raises(ConfigError, match="--python say how to reach --host"):
        read(tmp_path, text)
    monkeypatch.setitem(DEVICES, "jetson", replace(DEVICES["jetson"], is_here=lambda: True))
    (jetson,) = read(tmp_path, text).values()
    assert jetson.host is not None and jetson.host.is_here and jetson.machine == HERE


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing.toml", tmp_path):
        with pytest.raises(ConfigError, match="--device-file: cannot read"):
            read_devices(path, Timing())


def test_an_option_for_all_that_a_device_does_not_have(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"device 'a': --threads: a device of kind cuda does not have this"):
        read(tmp_path, device(kind="cuda"), Timing(threads=2))


def test_the_file_of_the_page(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "how-to" / "bench-a-fleet.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```toml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    found = read(tmp_path, block)
    assert [(one.name, one.kind) for one in found.values()] == [
        ("desk", "cpu"), ("pi", "ssh"), ("orin", "jetson"), ("chromium", "browser"), ("phone", "browser"),
    ]  # fmt: skip  # a list of names
    rows = re.findall(r"^\| (.+?) \| (`.+?) \|$", page, re.MULTILINE)
    for kind in kinds():
        named = {
            key
            for first, second in rows
            if f"`{kind}`" in first.split(" but ")[0]
            or (first.startswith("every") and f"`{kind}`" not in first)
            for key in re.findall(r"`([^`]+)`", second)
        }
        assert named == {*keys_of(kind)}, kind
