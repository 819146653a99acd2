"""Options of `bench`. Light: imported by `--help`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DeviceOption = Annotated[
    str,
    typer.Option(
        help="Where to measure: cpu, cuda (the first GPU), mac, iphone, jetson (this one, or with --host), "
        "or ssh (a Linux board; with --host)."
    ),
]
AgainstOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--against",
        help="A bundle to compare with, measured in turn; may be repeated.",
        show_default=False,
    ),
]
PicturesOption = Annotated[
    Path | None,
    typer.Option(
        "--images",
        help="Folder of images to feed (default: synthetic pictures). Where a bucket is chosen for each, at most "
        "256 are looked at for the mix and 64 of them timed.",
        show_default=False,
    ),
]
BatchOption = Annotated[
    int | None,
    typer.Option(
        "--batch",
        min=1,
        help="Images a run, for a bundle of dynamic batch (default: 1).",
        show_default=False,
    ),
]
VerdictOption = Annotated[
    bool,
    typer.Option(
        "--verdict",
        help="Measure whether the plan of BUNDLE pays, against top-k and dense exports of --checkpoint.",
    ),
]
MadeFromOption = Annotated[
    Path | None,
    typer.Option("--checkpoint", help="For --verdict: what BUNDLE was made from.", show_default=False),
]
BatchesOption = Annotated[
    str | None,
    typer.Option("--batches", help="For --verdict: batch sizes (default: 1,8,32).", show_default=False),
]
RunsOption = Annotated[
    int | None,
    typer.Option(
        "--runs", min=10, help="Runs in a block (default: half a second's worth).", show_default=False
    ),
]
BlocksOption = Annotated[
    int | None,
    typer.Option(
        "--blocks",
        min=1,
        help="Blocks of each bundle, taken in turn (default: 10; iphone: 3).",
        show_default=False,
    ),
]
WarmupOption = Annotated[
    int | None,
    typer.Option(
        "--warmup",
        min=0,
        help="Runs before each block that are not counted (default: 3; iphone: 1).",
        show_default=False,
    ),
]
StartsOption = Annotated[
    int | None,
    typer.Option(
        "--starts",
        min=1,
        help="New processes to time cold start and load; for cpu, and not for --verdict (default: 5).",
        show_default=False,
    ),
]
UnitsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--compute-units",
        metavar="UNITS",
        help="For mac and iphone: all, cpu_ne, cpu_gpu or cpu; may be repeated (default: compare, all of them).",
        show_default=False,
    ),
]
PhoneOption = Annotated[
    str | None,
    typer.Option("--phone", metavar="NAME_OR_UDID", help="For iphone: which one.", show_default=False),
]
TeamOption = Annotated[
    str | None,
    typer.Option(
        "--team", help="For iphone: Apple developer team that signs the runner app.", show_default=False
    ),
]
ProjectOption = Annotated[
    Path | None,
    typer.Option(
        "--emit-project",
        metavar="DIR",
        help="Measure nothing: write a folder whose bench.py measures a Core ML bundle on a Mac without this "
        "package, for mac and iphone.",
        show_default=False,
    ),
]
OutOption = Annotated[
    Path | None,
    typer.Option("-o", "--out", help="JSON file to write, with every raw sample.", show_default=False),
]
