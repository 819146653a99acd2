"""The command line. Each command loads what it needs when it is used, so that `--help` is fast."""

from __future__ import annotations

from morvit_deploy.cli.shared.interrupts import while_loading

with while_loading():
    from morvit_deploy.cli.app import app, main

    from morvit_deploy.cli import (  # noqa: F401  # isort: skip  # each registers itself, in the order of --help
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
        compare,
        report,
        demo,
    )

__all__ = ["app", "main"]
