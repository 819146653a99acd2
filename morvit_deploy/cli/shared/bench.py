"""Which options of `bench` go together, and where its result is written."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from morvit_deploy.cli.shared.bench_options import (
    Apple,
    Browsing,
    Measured,
    Timing,
    Verdict,
    Written,
    given,
    named,
)  # fmt: skip
from morvit_deploy.cli.shared.console import warn
from morvit_deploy.cli.shared.pages import check_page, with_command, with_depths, write_page
from morvit_deploy.cli.shared.pictures import say_opened
from morvit_deploy.cli.shared.places import bundle_folder
from morvit_deploy.cli.shared.sources import Foreign
from morvit_deploy.cli.shared.ssh import Ssh
from morvit_deploy.errors import ConfigError
from morvit_deploy.files import check_files, is_own_svg, no_file, of_format, write_together

if TYPE_CHECKING:
    from morvit_deploy.report import Report
    from morvit_deploy.timing.result import Result


PICTURE = ".profile.svg"
IS_RESULT = of_format("morvit-bench/")


class Settings(TypedDict):
    """What every function that measures takes, as its keywords."""

    images: Path | None
    upscale: bool
    exif: bool
    runs: int | None
    blocks: int
    warmup: int


@dataclass(frozen=True, kw_only=True)
class BenchWords:
    """Everything that was typed after `morvit-deploy bench`."""

    bundle: Path | None
    device: str
    measured: Measured
    timing: Timing
    verdict: Verdict
    apple: Apple
    browsing: Browsing
    output: Written
    foreign: Foreign  # how to read --checkpoint

    @property
    def out(self) -> Path | None:
        """The file to write."""
        return self.output.out

    @property
    def folders(self) -> list[Path]:
        """The bundle, and those to compare it with."""
        return [bundle_folder(self.bundle), *self.measured.against]

    @property
    def settings(self) -> Settings:
        """With the defaults of the loop."""
        from morvit_deploy.timing.loop import BLOCKS, WARMUP

        timing = self.timing
        return {
            "images": self.measured.images,
            "upscale": self.measured.upscale,
            "exif": self.measured.exif,
            "runs": timing.runs,
            "blocks": timing.blocks or BLOCKS,
            "warmup": WARMUP if timing.warmup is None else timing.warmup,
        }

    def check_verdict(self) -> None:
        """ConfigError for options that mean nothing with --verdict, or without it."""
        verdict = self.verdict
        if verdict.verdict and self.measured.profile:
            raise ConfigError(
                "--profile explains one bundle, and --verdict compares several forms of it; run one after the other"
            )
        if verdict.verdict and (self.measured.against or self.measured.batch is not None):
            raise ConfigError(
                "--verdict chooses what to measure: leave out --against, and give --batches instead of --batch"
            )
        settings = (verdict.checkpoint, verdict.batches, verdict.topk_scale)
        if not verdict.verdict and any(given is not None for given in settings):
            raise ConfigError(
                "--checkpoint, --batches and --topk-scale are for --verdict; give it too, or leave them out"
            )
        if not verdict.verdict and (words := self.foreign.typed):
            raise ConfigError(
                f"{', '.join(words)} say how to read --checkpoint, which is for --verdict; leave them out"
            )

    def check_regression(self) -> None:
        """ConfigError for --baseline where no list of bundles is measured."""
        limit = self.output.limit
        if self.output.baseline is None or limit < 0:
            return
        if (
            self.verdict.verdict
            or self.apple.emit_project is not None
            or self.device in ("cuda", "mac", "iphone")
        ):
            raise ConfigError(
                "--baseline compares bundles that --device cpu, ssh, jetson or browser measures; leave it out with "
                "--verdict, --emit-project and the other devices"
            )

    def check_fleet(self, ssh: Ssh) -> None:
        """ConfigError for options that say what one device is, or that need one result."""
        file = self.measured.device_file
        if file is None:
            if self.measured.at_once:
                raise ConfigError("--at-once is for --device-file; give it too, or leave it out")
            return
        one = {"--device": self.device != "cpu", "--tf32": self.measured.tf32}
        if said := given(one | named(ssh) | named(self.browsing)):
            raise ConfigError(f"{said}: for one device; write it into its table of {file}")
        other = named(self.apple) | {
            "--verdict": self.verdict.verdict,
            "--profile": self.measured.profile,
            "--baseline": self.output.baseline,
        }
        if said := given(other):
            raise ConfigError(f"{said}: for one device; run `bench` on it alone, without --device-file")

    def check_profile(self) -> None:
        """ConfigError for --profile where nothing can be profiled."""
        if self.measured.profile:
            from morvit_deploy.measuring.core.devices import check_profile

            check_profile(self.device)
            if self.apple.emit_project is not None:
                raise ConfigError("--profile measures and --emit-project does not; leave one of them out")

    def check_local(self) -> None:
        """ConfigError for options that the device does not have."""
        apple = self.apple
        if self.measured.tf32 and self.device != "cuda":
            raise ConfigError(f"--tf32: for --device cuda; got device {self.device!r}")
        if said := given(
            {"--compute-units": apple.compute_units, "--phone": apple.phone, "--team": apple.team}
        ):
            raise ConfigError(f"{said}: for --device mac or iphone; got device {self.device!r}")
        if self.device != "browser" and (said := self.browsing.typed):
            raise ConfigError(f"{said}: for --device browser; got device {self.device!r}")
        if self.device == "cuda" and (self.verdict.verdict or self.timing.threads is not None):
            raise ConfigError(
                "--verdict and --threads are for --device cpu; leave them out with --device cuda"
            )

    def check_apple(self) -> None:
        """The same for a Mac or an iPhone."""
        others: dict[str, object] = {
            "--against": self.measured.against,
            "--threads": self.timing.threads,
            "--batch": self.measured.batch,
            "--starts": self.timing.starts,
            "--tf32": self.measured.tf32,
            "--verdict": self.verdict.verdict,
        }
        if said := given(others):
            raise ConfigError(
                f"{said} have no meaning on a Mac or an iphone, where one bundle of batch 1 is measured under "
                "several compute units; leave them out"
            )
        if said := self.browsing.typed:
            raise ConfigError(f"{said}: for --device browser; got device {self.device!r}")
        of_phone = {"--phone": self.apple.phone, "--team": self.apple.team}
        if self.device != "iphone" and (said := given(of_phone)):
            raise ConfigError(f"{said}: for --device iphone; got device {self.device!r}")

    def say_images(self) -> None:
        """Print which files of --images are used."""
        from morvit_deploy.bundle.images import open_images
        from morvit_deploy.bundle.manifest import open_manifest

        if self.measured.images is not None:
            config = open_manifest(self.folders[0]).config
            say_opened(open_images(self.measured.images, config, exif=self.measured.exif))

    def keep(self, result: Result[Any], report: Report) -> None:
        """Print the warnings, and write the files of --out, with a profile's picture beside it, and of --report."""
        self.say_images()
        warn(result.warnings)
        if self.out is not None:
            self.write(result, report)
        if self.output.report is not None:
            fed = self.measured
            drawn = with_depths(report, self.folders[0], fed.images, upscale=fed.upscale, exif=fed.exif)
            write_page(self.output.report, with_command(drawn, result.warnings), force=self.output.force)

    def check_out(self) -> None:
        """OutputError unless --out and --report can be written, before anything is measured."""
        inputs = (self.bundle, *self.measured.against, self.measured.images, self.verdict.checkpoint)
        if self.output.report is not None:
            check_page(self.output.report, force=self.output.force, inputs=inputs)
        if self.out is not None:
            files = [self.out, *([picture_beside(self.out)] if self.measured.profile else [])]
            check_files(files, force=self.output.force, replaces=is_bench_file, inputs=inputs)

    def write(self, result: Result[Any], report: Report | None = None) -> None:
        """Write the file of --out, with the report of a complete result, and a profile's picture beside it."""
        from morvit_deploy.cli.shared.stored import KEY, stored

        assert self.out is not None
        found = result.as_dict() | (
            {} if report is None else {KEY: stored(with_command(report, result.warnings))}
        )
        text = json.dumps(found, indent=1, allow_nan=False) + "\n"
        contents = {self.out: text.encode()}
        picture = report.picture if report and self.measured.profile else None
        if picture is not None and picture.content is not None:
            contents[picture_beside(self.out)] = picture.content
        write_together(contents, replaces=is_bench_file if self.output.force else no_file)


def picture_beside(out: Path) -> Path:
    """The file of a profile's picture: bench.profile.svg beside bench.json."""
    return out.with_name(f"{out.stem}{PICTURE}") if out.name else out  # a folder, which is refused


def is_bench_file(path: Path) -> bool:
    """Is it a file that `bench` wrote?"""
    return is_own_svg(path) if path.name.endswith(PICTURE) else IS_RESULT(path)
