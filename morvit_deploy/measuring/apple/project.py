"""Writes a benchmark project that runs on a Mac without this package: bundle, goldens and measuring code."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from morvit_deploy.bundle.manifest import MANIFEST, Manifest
from morvit_deploy.errors import OutputError
from morvit_deploy.exporters.functions.devices import oldest_macos
from morvit_deploy.exporters.kit.write import app_form
from morvit_deploy.files import files_in, new_folder
from morvit_deploy.machine.dependencies import installed
from morvit_deploy.machine.extras import PACKAGE
from morvit_deploy.measuring.apple.goldens import Goldens, write_goldens
from morvit_deploy.measuring.apple.running import runtime_of
from morvit_deploy.measuring.apple.script import BUNDLE, GOLDEN, PROJECT, PROJECT_FORMAT

# the measuring modules, which are copied; they import numpy, coremltools and one another
CARRIED = (
    "morvit_deploy",
    "morvit_deploy.errors",
    "morvit_deploy.files",
    *(f"morvit_deploy.files.{name}" for name in ("checks", "locks", "ours", "publishing")),
    "morvit_deploy.layout",
    "morvit_deploy.model",
    "morvit_deploy.model.answers",
    "morvit_deploy.model.answers.heads",
    "morvit_deploy.report",
    "morvit_deploy.strict_json",
    "morvit_deploy.exporters",
    "morvit_deploy.exporters.coreml",
    "morvit_deploy.exporters.functions",
    *(f"morvit_deploy.exporters.functions.{name}" for name in ("devices", "names")),
    "morvit_deploy.exporters.coreml.sdk",
    *(f"morvit_deploy.exporters.coreml.sdk.{name}" for name in ("bundle", "load")),
    "morvit_deploy.timing",
    *(f"morvit_deploy.timing.{name}" for name in ("arithmetic", "loop", "result", "samples")),
    "morvit_deploy.measuring",
    "morvit_deploy.measuring.core",
    "morvit_deploy.measuring.core.results",
    "morvit_deploy.measuring.mix",
    *(f"morvit_deploy.measuring.mix.{name}" for name in ("latency", "mix")),
    "morvit_deploy.measuring.apple",
    *(
        f"morvit_deploy.measuring.apple.{name}"
        for name in (
            *("checklist", "conditions", "core_ml", "dispatching", "goldens", "mac", "measure"),
            *("outcome", "phone", "placement", "running", "script", "views"),
        )
    ),
)
BENCH = '''#!/usr/bin/env python3
"""Measures the bundle of this folder; see `python bench.py --help`."""

import sys
from pathlib import Path

sys.dont_write_bytecode = True
PROJECT = Path(__file__).resolve().parent
sys.path.insert(0, str(PROJECT))  # the measuring code is here, whatever else is installed

from morvit_deploy.measuring.apple.script import main  # noqa: E402

sys.exit(main(PROJECT, sys.argv[1:]))
'''
README = """# Benchmark of {name}

On a Mac with macOS {macos} or newer and Python 3.10 or newer, in this folder:

```
python3 -m venv .venv && .venv/bin/pip install -r requirements.txt
.venv/bin/python bench.py                    # this Mac, every choice of compute units
{on_a_phone}```

`bench.py` first runs the pictures of `golden/` in every bucket and compares the logits with the expected ones; a
device that returns others is not timed (exit status 1). Then it loads every function twice and times blocks of runs.
It prints tables and writes every raw sample to `result.json` (`morvit-bench/1`), the only file to bring back.

{note}

- `bundle/`: the bundle, unchanged; the sha256 of its files is checked before anything runs
- `golden/`: pictures and expected logits for each bucket, {source}; never unpickled
- `morvit_deploy/`: the measuring modules of morvit-deploy {version}, unchanged
- mix of the timed stream: {mix}
"""
NUMPY = "numpy>=1.26\n"
PILLOW = "pillow>=10.3  # the package takes pictures\n"


def write_project(
    bundle: Path,
    manifest: Manifest,
    goldens: Goldens,
    folder: Path,
    *,
    inputs: str,
    force: bool = False,
) -> Path:
    """Write `folder`, whole or not at all; OutputError when it cannot be written.

    `bundle` has been checked. `inputs` describes where pictures come from.
    """
    check_place(bundle, folder)
    texts = runtime_of(manifest.target).project
    with new_folder(folder, marker=PROJECT, force=force) as partial:
        for name in (MANIFEST, *(file.path for file in manifest.files)):
            (partial / BUNDLE / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(bundle / name, partial / BUNDLE / name)  # follows links
        write_goldens(goldens, partial / GOLDEN)
        carry((*CARRIED, *texts.carried), partial)
        version = installed(PACKAGE) or ""
        known = {
            "format": PROJECT_FORMAT,
            "made_by": f"{PACKAGE} {version}",
            "buckets": list(goldens.buckets),
            "shares": dict(goldens.shares),
            "mix": goldens.shares_from,
            "inputs": inputs,
            "expected": texts.expected,
        }
        readme = README.format(
            name=bundle.resolve().name,
            macos=oldest_macos(app_form(manifest).oldest_ios),
            on_a_phone=f"{texts.on_a_phone}    # a connected iPhone; needs Xcode\n" * bool(texts.on_a_phone),
            note=texts.note,
            source=texts.expected,
            version=version,
            mix=goldens.shares_from,
        )
        for file, text in {
            "bench.py": BENCH,
            "README.md": readme,
            "requirements.txt": texts.requirements + NUMPY + PILLOW * (manifest.input == "uint8"),
        }.items():
            (partial / file).write_text(text, encoding="utf-8")
        known["files"] = files_in(partial)
        (partial / PROJECT).write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    return folder


def check_place(bundle: Path, folder: Path) -> None:
    """OutputError for a project inside the bundle, which it would change, or around it."""
    inner, outer = bundle.resolve(), folder.resolve()
    if outer == inner or outer.is_relative_to(inner):
        raise OutputError(
            f"--emit-project {folder} lies inside the bundle {bundle}; choose a place outside of it"
        )
    if inner.is_relative_to(outer):
        raise OutputError(f"--emit-project {folder} contains the bundle {bundle}; choose another place")


def carry(modules: Sequence[str], folder: Path) -> None:
    """Copy modules and packages of this installation, by their import names, into `folder`."""
    for name in modules:
        spec = find_spec(name)
        assert spec is not None and spec.origin is not None, name
        inside = Path(*name.split("."))
        file = (
            inside / "__init__.py" if Path(spec.origin).name == "__init__.py" else inside.with_suffix(".py")
        )
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(spec.origin, folder / file)
