"""The emulated Arm machine of `make arm`: what it says where it cannot be made, and that the agent starts on it."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from places import ROOT
from userland import PROCESSORS, Userland

from morvit_deploy.machine.integer_kernels import integer_kernels

MAKE = Path(__file__).with_name("make-userland")
BEST = {"cortex-a72": "asimd", "cortex-a76": "asimddp", "i8mm": "i8mm"}
ASK = """
import json, sys
sys.path.insert(0, {root!r})
from morvit_deploy.agent.host.machine import machine
from morvit_deploy.agent.runtimes import check_runtime
print(json.dumps([machine(), check_runtime("onnx"), sys.executable]))
"""


@pytest.mark.parametrize("name", PROCESSORS)
def test_no_processor_of_arm_saturates(name: str) -> None:
    kernels = integer_kernels("aarch64", PROCESSORS[name].features.split())
    assert (kernels.instruction_set, kernels.saturating) == (BEST[name], False)


@pytest.mark.parametrize(
    ("there", "missing"), [([], "QEMU's user emulation"), (["qemu-aarch64-static"], "mmdebstrap")]
)
def test_what_is_missing_is_said_in_one_line(tmp_path: Path, there: list[str], missing: str) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("bash", "mkdir"):
        (tools / name).symlink_to(str(shutil.which(name)))
    for name in there:
        (tools / name).symlink_to("/bin/true")
    command = ["bash", str(MAKE), str(tmp_path / "arm"), "python3"]
    done = subprocess.run(command, capture_output=True, text=True, env={"PATH": str(tools)})
    assert done.returncode == 2
    assert done.stderr == (
        f"error: {missing} is missing; run: sudo apt-get install qemu-user-static mmdebstrap\n"
    )


@pytest.mark.slow
@pytest.mark.skipif(bool(Userland().why_not), reason=Userland().why_not or "it is there")
def test_the_agent_finds_itself_on_arm() -> None:
    machine = Userland()
    machine.become(PROCESSORS["cortex-a76"])
    found, versions, executable = json.loads(machine.run("-c", ASK.format(root=str(ROOT))))
    assert found["system"].endswith(" aarch64")
    assert found["instruction_sets"] == ["asimd", "asimddp"]
    assert {"python", "numpy", "onnxruntime"} == set(versions)
    assert executable == str(machine.python), "the processes that the agent starts are emulated, too"
