"""Options that several commands share. Light: `--help` imports it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from morvit_deploy.cli.shared.console import note
from morvit_deploy.cli.shared.derived import Arg, Group
from morvit_deploy.cli.shared.pictures import say_folder
from morvit_deploy.errors import ConfigError
from morvit_deploy.exporters.options import Help

VERIFICATION, OUTPUT = "Verification", "Output"

Checkpoint = Annotated[
    Path | None,
    Arg(
        "A morvit/1 or morvit/2 folder, or what `convert` takes (default: the current folder).",
        "CHECKPOINT",
    ),
]
Bundle = Annotated[Path | None, Arg("Bundle folder (default: the newest under build/).", "BUNDLE")]
Json = Annotated[bool, Help("Print one JSON document on stdout; messages go to stderr.", panel=OUTPUT)]
Page = Annotated[
    Path | None,
    Help("Page to write, which opens without a network: .html or .md.", "FILE", panel=OUTPUT),
]
Force = Annotated[bool, Help("Replace the output if it exists.", panel=OUTPUT)]
Threads = Annotated[int | None, Help("Compute threads (default: all cores).", least=1)]
Reference = Annotated[
    Path | None,
    Help(
        "Images (or inputs) and the logits that your own model returned for them: checks how the checkpoint is read.",
        "FILE.npz",
    ),
]
Upscale = Annotated[bool, Help("Enlarge images that are smaller than the crop.")]
Exif = Annotated[bool, Help("Turn images by their EXIF orientation (default: not, as in training).")]


@dataclass(frozen=True)
class Output(Group):
    """How the result is shown, and whether it may replace another."""

    panel = OUTPUT
    force: Force = False
    json: Json = False


@dataclass(frozen=True)
class Pictures(Group):
    """Images of the user, and how they are read."""

    panel = "Images"
    images: Annotated[
        Path | None,
        Help("Folder of images; with labels.csv or class subfolders, top-1 is reported too.", metavar="DIR"),
    ] = None
    limit: Annotated[
        int | None,
        Help("Use at most N images (default: 32 for export, 64 for verify, 256 for inspect).", least=1),
    ] = None
    upscale: Upscale = False
    exif: Exif = False

    def check(self) -> None:
        """ConfigError for options for reading images when there are none to read."""
        if self.images is None and (self.limit is not None or self.upscale or self.exif):
            raise ConfigError(
                "--limit, --upscale and --exif are for --images; give --images too, or leave them out"
            )

    def say(self, source: Path) -> dict[str, Any] | None:
        """Print which files of the folder are used; None where no folder was given."""
        return None if self.images is None else say_folder(self.images, source, exif=self.exif)

    def remark_on_limit(self, source: Path, used: int) -> None:
        """Print a note when the folder holds more images than were used."""
        if self.images is None:
            return
        from morvit_deploy.bundle.images import open_images
        from morvit_deploy.model.config import load_config

        found = len(open_images(self.images, load_config(source)))
        if used < found:
            note(f"used {used} of {found} images, a seeded random choice; --limit N changes the number")


@dataclass(frozen=True)
class Verification(Pictures):
    """What a bundle is compared on, and how much must agree."""

    panel = VERIFICATION
    min_agreement: Annotated[
        float | None,
        Help(
            "Minimum top-1 agreement of the plan's model with the trained one, 0 to 1 (default: reported only). "
            "Below fp32 also the gate for decisions and classes (default: int8 0.99, fp16 0.999, Apple 0.995).",
            least=0,
            most=1,
        ),
    ] = None
    reference: Reference = None
