"""What a user imports: the public names, and no torch where a device has none."""

from __future__ import annotations

import os
import pkgutil
import re
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module, metadata
from pathlib import Path

import pytest
from bucket_plans import EXPERT, TOKEN, depth_ladder, threshold_ladder
from places import ROOT

import morvit_deploy
from morvit_deploy import errors

HEAVY = ("torch", "onnx", "onnxsim", "onnxscript", "matplotlib")
HELP_S = 0.4  # the project's promise on a quiet machine


def modules_after(program: str, *arguments: object) -> set[str]:
    """Heavy packages that a fresh Python has loaded after `program`."""
    script = f"import sys\n{program}\nprint('loaded', *(name for name in {HEAVY!r} if name in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, *map(str, arguments)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split()[1:])


HELP = """
from morvit_deploy.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
"""
RUN = """
import numpy as np
from morvit_deploy import open_bundle
with open_bundle(sys.argv[1]) as session:
    pixels = np.stack([session.read(path) for path in sys.argv[2:]])
    answer = session.run(pixels)
    session.guesses(answer['logits'][0])
"""


@pytest.mark.parametrize(
    "command",
    [
        "",
        "init",
        "convert",
        "calibrate",
        "export",
        "verify",
        "predict",
        "inspect",
        "bench",
        "compare",
        "report",
        "doctor",
        "demo",
    ],
)
def test_help_loads_nothing_heavy(command: str) -> None:
    assert modules_after(HELP, *filter(None, [command]), "--help") == set()


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert modules_after("import morvit_deploy; dir(morvit_deploy)") == set()


def test_opening_and_running_a_bundle_needs_no_torch(tiny_bundle: Path, image_files: list[Path]) -> None:
    assert modules_after(RUN, tiny_bundle, *image_files) == set()


def test_running_a_bundle_of_several_buckets_needs_no_torch(
    exported: Callable[..., Path], image_files: list[Path]
) -> None:
    graph = exported(EXPERT, plan=threshold_ladder())
    host = exported(TOKEN, plan=depth_ladder(), batch="dynamic", dispatch="host")
    for bundle in (graph, host):
        assert modules_after(RUN, bundle, *image_files) == set()
    alone = RUN.replace("open_bundle(sys.argv[1])", "open_bundle(sys.argv[1], bucket='b0')")
    assert modules_after(alone, graph, *image_files) == {"onnx"}, "one bucket is taken out of the graph"


def test_predicting_from_python_needs_no_torch(tiny_bundle: Path, image_files: list[Path]) -> None:
    program = "import morvit_deploy as md\nrepr(md.predict(sys.argv[1], sys.argv[2:]))"
    assert modules_after(program, tiny_bundle, *image_files) == set()


def test_predict_needs_no_torch(tiny_bundle: Path, image_files: list[Path]) -> None:
    assert modules_after(HELP, "predict", tiny_bundle, image_files[0]) == set()


def test_help_is_quick() -> None:
    """Processor time of the whole process, the least of ten at most: others may empty the caches meanwhile."""
    script = "import sys; sys.argv = ['morvit-deploy', '--help']; from morvit_deploy.cli import main; main()"
    spent: list[float] = []
    while len(spent) < 10 and min(spent, default=HELP_S + 1) > HELP_S:
        spent.append(children_s(script))
    assert min(spent) <= HELP_S, spent


def children_s(script: str) -> float:
    """Processor time of a Python process, in seconds."""
    before = os.times()
    subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


@pytest.mark.parametrize("name", morvit_deploy.__all__)
def test_public_names_resolve(name: str) -> None:
    """Also after the module that holds it, and every top one, has been imported: none may take a function's place."""
    import_module(f"morvit_deploy.{morvit_deploy._HOMES[name]}")
    for module in pkgutil.iter_modules(morvit_deploy.__path__):
        import_module(f"morvit_deploy.{module.name}")
    assert name in dir(morvit_deploy)
    public = getattr(morvit_deploy, name)
    assert callable(public) and public.__doc__
    assert public.__name__ == name


def test_an_unknown_name_lists_those_there_are() -> None:
    with pytest.raises(
        AttributeError,
        match=r"no attribute 'xyz'; it has: AccuracyError, .* Browser, BundleError, .*bench_fleet, build, calibrate",
    ):
        morvit_deploy.xyz  # noqa: B018


def test_a_misspelt_name_names_the_closest() -> None:
    with pytest.raises(AttributeError, match="no attribute 'exprot'; did you mean 'export'"):
        morvit_deploy.exprot  # noqa: B018


def test_every_error_is_public() -> None:
    tree = {
        name for name, one in vars(errors).items() if isinstance(one, type) and issubclass(one, Exception)
    }
    assert tree <= {*morvit_deploy.__all__}


def test_the_version_is_the_installed_one_or_the_source_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    written = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert written is not None and morvit_deploy.__version__ == written.group(1)

    def not_installed(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", not_installed)
    assert morvit_deploy.__version__ == written.group(1)


def test_the_package_is_typed() -> None:
    assert (Path(morvit_deploy.__file__).parent / "py.typed").is_file()
