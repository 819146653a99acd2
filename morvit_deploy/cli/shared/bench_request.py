"""What was typed after `morvit-deploy bench`, in one piece, and which options go together."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from morvit_deploy.cli.shared.common import bundle_folder, stderr
from morvit_deploy.cli.shared.sources import said_options
from morvit_deploy.errors import ConfigError, OutputError

if TYPE_CHECKING:
    from morvit_deploy.timing.result import Result


class Settings(TypedDict):
    """What every function that measures takes, as its keywords."""

    images: Path | None
    upscale: bool
    runs: int | None
    blocks: int
    warmup: int


@dataclass(frozen=True, kw_only=True)
class BenchWords:
    """The options as they were given; None where one was left out."""

    bundle: Path | None
    device: str
    against: list[Path] | None
    threads: int | None
    images: Path | None
    upscale: bool
    batch: int | None
    verdict: bool
    checkpoint: Path | None
    batches: str | None
    runs: int | None
    blocks: int | None
    warmup: int | None
    starts: int | None
    compute_units: list[str] | None
    phone: str | None
    team: str | None
    emit_project: Path | None
    out: Path | None
    force: bool
    said: dict[str, Any]  # how to read `checkpoint`

    @property
    def folders(self) -> list[Path]:
        """The bundle, and those to compare it with."""
        return [bundle_folder(self.bundle), *(self.against or [])]

    @property
    def sizes(self) -> list[int] | None:
        """The numbers of --batches."""
        return None if self.batches is None else numbers(self.batches)

    @property
    def settings(self) -> Settings:
        """With the defaults of the loop."""
        from morvit_deploy.timing.loop import BLOCKS, WARMUP

        return {
            "images": self.images,
            "upscale": self.upscale,
            "runs": self.runs,
            "blocks": self.blocks or BLOCKS,
            "warmup": WARMUP if self.warmup is None else self.warmup,
        }

    def check_out(self) -> None:
        """OutputError when the file cannot be written."""
        out = self.out
        if out is not None and out.exists() and not (self.force and out.is_file()):
            what = (
                "is a folder, expected a file name" if out.is_dir() else "exists; pass --force to replace it"
            )
            raise OutputError(f"-o {out} {what}")

    def check_verdict(self) -> None:
        """ConfigError for options that mean nothing with --verdict, or without it."""
        if self.verdict and (self.against or self.batch is not None):
            raise ConfigError(
                "--verdict chooses what to measure: leave out --against, and give --batches instead of --batch"
            )
        if not self.verdict and (self.checkpoint is not None or self.batches is not None):
            raise ConfigError("--checkpoint and --batches are for --verdict; give it too, or leave them out")
        if not self.verdict and (words := said_options(self.said)):
            raise ConfigError(
                f"{', '.join(words)} say how to read --checkpoint, which is for --verdict; leave them out"
            )

    def check_local(self) -> None:
        """ConfigError for options that the device does not have."""
        apple = {"--compute-units": self.compute_units, "--phone": self.phone, "--team": self.team}
        if said := given(apple):
            raise ConfigError(f"{said}: for --device mac or iphone; got device {self.device!r}")
        if self.device == "cuda" and (self.verdict or self.threads is not None):
            raise ConfigError(
                "--verdict and --threads are for --device cpu; leave them out with --device cuda"
            )

    def check_apple(self) -> None:
        """The same for a Mac or an iPhone."""
        others: dict[str, object] = {
            "--against": self.against,
            "--threads": self.threads,
            "--batch": self.batch,
        }
        if said := given(others | {"--starts": self.starts, "--verdict": self.verdict}):
            raise ConfigError(
                f"{said} have no meaning on a Mac or an iphone, where one bundle of batch 1 is measured under "
                "several compute units; leave them out"
            )
        if self.device != "iphone" and (said := given({"--phone": self.phone, "--team": self.team})):
            raise ConfigError(f"{said}: for --device iphone; got device {self.device!r}")

    def keep(self, result: Result[Any]) -> None:
        """Print the warnings, and write the file of --out."""
        from morvit_deploy.files import write_text

        for warning in result.warnings:
            stderr().print(f"warning: {warning}", markup=False, highlight=False)
        if self.out is not None:
            write_text(self.out, json.dumps(result.as_dict(), indent=1, allow_nan=False) + "\n")


def given(options: Mapping[str, object]) -> str:
    """The names of those that were given, with commas."""
    return ", ".join(name for name, value in options.items() if value not in (None, False, []))


def numbers(text: str) -> list[int]:
    """Batch sizes with commas; ConfigError for anything else."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ConfigError(f"--batches: got {text!r}, expected positive numbers with commas, as in 1,8,32")
    return [int(part) for part in parts]
