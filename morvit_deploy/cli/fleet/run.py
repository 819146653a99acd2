"""Measures a fleet and writes what was found, also after Ctrl-C."""

from __future__ import annotations

import json
from pathlib import Path

from morvit_deploy.cli.fleet.devices import read_devices
from morvit_deploy.cli.shared.bench import BenchWords
from morvit_deploy.cli.shared.console import emit, note, warn, working_on_several
from morvit_deploy.cli.shared.pages import check_page, with_command, write_page
from morvit_deploy.files import check_files, no_file, of_format, write_text
from morvit_deploy.measuring.fleet.fleet import FleetInterrupt, measure_fleet
from morvit_deploy.measuring.fleet.result import FleetResult
from morvit_deploy.report import numbered

IS_RESULT = of_format("morvit-fleet/")


def run_fleet(words: BenchWords, file: Path) -> None:
    """Measure all devices; CheckFailed if one dropped out, and KeyboardInterrupt on Ctrl-C, once all is written."""
    _check_out(words, file)
    devices = read_devices(file, words.timing)
    measured = words.measured
    interrupt = None
    try:
        with working_on_several() as (tell, progress):
            result = measure_fleet(
                words.folders, list(devices.values()), at_once=measured.at_once, images=measured.images,
                upscale=measured.upscale, exif=measured.exif, batch=measured.batch, tell=tell, progress=progress,
            )  # fmt: skip  # two lines read better than nine
    except FleetInterrupt as stopped:
        if not any(one.result for one in stopped.partial.outcomes):
            raise
        interrupt, result = stopped, stopped.partial
    _keep(words, result)
    if interrupt is not None:
        whole = sum(one.complete for one in result.outcomes)
        note(f"{whole} of {numbered(len(result.outcomes), 'device')} had been measured before the interrupt")
        raise interrupt
    result.check()


def _check_out(words: BenchWords, file: Path) -> None:
    """OutputError unless the files can be written, before anything is measured."""
    out, inputs = words.output, (*words.folders, words.measured.images, file)
    check_page(out.report, force=out.force, inputs=inputs)
    if out.out is not None:
        check_files([out.out], force=out.force, replaces=IS_RESULT, inputs=inputs)


def _keep(words: BenchWords, result: FleetResult) -> None:
    """Print the tables and write the files."""
    from morvit_deploy.cli.shared.stored import KEY, stored

    out = words.output
    words.say_images()
    warn(result.warnings)
    report = with_command(result.report())
    if out.out is not None:
        text = json.dumps(result.as_dict() | {KEY: stored(report)}, indent=1, allow_nan=False) + "\n"
        write_text(out.out, text, replaces=IS_RESULT if out.force else no_file)
    write_page(out.report, report, force=out.force)
    if words.measured.images is None:
        note("no --images given; measured on synthetic pictures")
    emit(result.report(), result.as_dict(), out.json)
