"""The command line. Each command loads what it needs when it is used, so that `--help` is fast."""

from __future__ import annotations

from morvit_deploy.cli.app import app, main

from morvit_deploy.cli import (  # isort: skip  # each registers itself, in the order that --help shows
    doctor,
    init,
    convert,
    inspect,
    calibrate,
    export,
    build,
    verify,
    predict,
    bench,
    demo,
)

__all__ = [
    "app",
    "bench",
    "build",
    "calibrate",
    "convert",
    "demo",
    "doctor",
    "export",
    "init",
    "inspect",
    "main",
    "predict",
    "verify",
]
