"""The emulated machine: a Debian for arm64 that `make-userland` unpacked, on a processor by name."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from places import ROOT

FOLDER = ROOT / "build" / "arm"
_CLI = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from morvit_deploy.cli import main; main()"
_BASE = "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"
_DOT = f"{_BASE} atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp"


@dataclass(frozen=True)
class Processor:
    """One that QEMU emulates; ONNX Runtime chooses its kernels by `features` and `part`."""

    qemu: str
    found_in: str
    part: str  # of /proc/cpuinfo
    features: str

    @property
    def cpuinfo(self) -> str:
        """Text of /proc/cpuinfo: QEMU 7 shows the host's own, which crashes ONNX Runtime 1.32."""
        lines = {
            "BogoMIPS": "100.00",
            "Features": self.features,
            "CPU implementer": "0x41",
            "CPU architecture": "8",
            "CPU variant": "0x0",
            "CPU part": self.part,
            "CPU revision": "0",
        }
        core = "".join(f"{name}\t: {value}\n" for name, value in lines.items())
        return "".join(f"processor\t: {number}\n{core}\n" for number in range(2))


PROCESSORS = {
    "cortex-a72": Processor("cortex-a72", "Raspberry Pi 4; no dot product", "0xd08", _BASE),
    "cortex-a76": Processor("cortex-a76", "Raspberry Pi 5; UDOT and SDOT", "0xd0b", _DOT),
    "i8mm": Processor("max,sve=off,sme=off", "Cortex-X2 and newer; UMMLA", "0xd48", f"{_DOT} i8mm bf16"),
}


@dataclass(frozen=True)
class Userland:
    """The folder that `make-userland` filled."""

    folder: Path = FOLDER

    @property
    def why_not(self) -> str:
        """Why nothing can be run in it; empty where it can."""
        return "" if (self.folder / ".ready").exists() else "there is no build/arm; `make arm` makes it"

    @property
    def python(self) -> Path:
        """The emulated Python."""
        return self.folder / "python3"

    def become(self, processor: Processor) -> None:
        """What starts from now on runs on this processor."""
        (self.folder / "cpu").write_text(processor.qemu)
        (self.folder / "root" / "proc" / "cpuinfo").write_text(processor.cpuinfo)

    def run(self, *words: str) -> str:
        """Output of the emulated Python; RuntimeError with its stderr where it fails."""
        done = subprocess.run([str(self.python), *words], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"exit status {done.returncode}: {done.stderr.strip()[-2000:]}")
        return done.stdout

    def morvit(self, words: Sequence[str | Path]) -> str:
        """Output of `morvit-deploy WORDS`, from this source."""
        return self.run("-c", _CLI, *map(str, words))
