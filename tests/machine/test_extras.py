"""Where a library is missing, every command and public function names it and the line that installs it."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from absent import COMMAND, without
from bucket_plans import EXPERT, threshold_ladder
from places import EXAMPLES

import morvit_deploy
from morvit_deploy.errors import MissingExtraError, TargetError
from morvit_deploy.machine import dependencies
from morvit_deploy.machine.extras import EXTRAS, is_missing, names_extra

DISTRIBUTIONS = {
    "coreai": "coreai-core",
    "coreai_opt": "coreai-opt",
    "coreai_torch": "coreai-torch",
    "PIL": "pillow",
    "sklearn": "scikit-learn",
    "tensorrt_rtx": "tensorrt-rtx",
}
EXPORT = [module for module, extra in EXTRAS.items() if extra == "export"]
BASE = [module for module, extra in EXTRAS.items() if extra]  # what the base install lacks
MODEL, IMAGES = EXAMPLES / "digits-expert", EXAMPLES / "digits-test"
IMAGE = IMAGES / "000.png"

COMMANDS = {  # words after the command -> what is missing, and the extra that is named
    "init": (("init", "--preset", "morvit_tiny_digits"), EXPORT, "export"),
    "convert": (("convert", MODEL, "-o", "out"), EXPORT, "export"),
    "inspect": (("inspect", MODEL), EXPORT, "export"),
    "calibrate": (("calibrate", MODEL, "--images", IMAGES), EXPORT, "export"),
    "export": (("export", MODEL), EXPORT, "export"),
    "export, onnx alone": (("export", MODEL), ["onnx"], "export"),
    "export to Core AI": (("export", MODEL, "--target", "coreai"), ["coreai_torch", "coreai"], "coreai"),
    "export to Core ML": (("export", MODEL, "--target", "coreml"), ["coremltools"], "coreml"),
    "export to Core ML, nothing": (("export", MODEL, "--target", "coreml"), BASE, "coreml"),
    "export to TensorRT": (("export", MODEL, "--target", "trt"), EXPORT, "export"),
    "demo": (("demo", "--examples", EXAMPLES), EXPORT, "export"),
    "verify": (("verify", "BUNDLE", "--checkpoint", MODEL), EXPORT, "export"),
    "depth maps": (("predict", "BUNDLE", IMAGE, "--depth-map", "maps"), ["matplotlib"], "export"),
    "verdict": (("bench", "ADAPTIVE", "--verdict", "--checkpoint", MODEL), EXPORT, "export"),
    "compare": (("compare", "BUNDLE", "--baselines", "resnet50"), ["timm"], "zoo"),
    "compare, nothing": (("compare", "BUNDLE", "--baselines", "resnet50"), EXPORT, "export"),
    "ray": (("calibrate", MODEL, "--images", IMAGES, "--ray", "local"), ["ray"], "ray"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_ends_with_the_line_that_installs_it(
    name: str, exported: Callable[..., Path], tiny_bundle: Path, tmp_path: Path
) -> None:
    words, absent, extra = COMMANDS[name]
    places = {"BUNDLE": tiny_bundle}
    if "ADAPTIVE" in words:
        places["ADAPTIVE"] = exported(EXPERT, plan=threshold_ladder())
    done = without(absent, tmp_path, COMMAND, *(places.get(str(word), word) for word in words))
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    *stages, line = done.stderr.splitlines()
    begun = [stage for stage in stages if not stage.startswith("note: ")]  # the images that were listed
    assert all(stage.endswith(" ...") for stage in begun), "nothing but the work that was begun"
    assert line.startswith("error: ") and line.endswith(f'; run `pip install "morvit-deploy[{extra}]"`')
    assert any(module in line for module in absent)
    assert list(tmp_path.iterdir()) == [tmp_path / "sitecustomize.py"]  # nothing half-written


def test_the_base_install_runs_and_checks_bundles(tiny_bundle: Path, tmp_path: Path) -> None:
    answer = without(BASE, tmp_path, COMMAND, "predict", tiny_bundle, IMAGE, "--upscale", "--json")
    assert answer.returncode == 0, answer.stderr
    found = without(BASE, tmp_path, COMMAND, "verify", tiny_bundle, "--json")
    assert found.returncode == 0, found.stderr
    checked = json.loads(found.stdout)
    assert set(checked["checked"]) == {"manifest", "files", "graphs", "run"}
    assert len(checked["not_checked"]) == 2
    assert 'run `pip install "morvit-deploy[export]"` and give --checkpoint' in found.stderr


def test_the_base_install_compares_bundles(tiny_bundle: Path, tmp_path: Path) -> None:
    quick = ("--blocks", 1, "--starts", 1, "--runs", 3, "--threads", 1)
    done = without(BASE, tmp_path, COMMAND, "compare", tiny_bundle, "--json", *quick)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["rows"]) == 1


def test_the_base_install_finds_a_damaged_bundle(copied_bundle: Path, tmp_path: Path) -> None:
    (copied_bundle / "weights.bin").write_bytes(b"short")
    done = without(BASE, tmp_path, COMMAND, "verify", copied_bundle)
    assert done.returncode == 2
    assert "weights.bin: 5 bytes" in done.stderr


def test_the_base_install_measures_and_says_what_it_could_not(
    exported: Callable[..., Path], tmp_path: Path
) -> None:
    bundle = exported(EXPERT, plan=threshold_ladder())
    words = ("bench", bundle, "--blocks", 1, "--starts", 1, "--runs", 10, "--json")
    done = without(BASE, tmp_path, COMMAND, *words)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["bundles"][0]["latency_ms"]["p50"] > 0
    assert any("buckets were not measured alone, which requires onnx" in line for line in told["warnings"])


def test_public_functions_name_the_extra(tmp_path: Path) -> None:
    program = """
import json
import morvit_deploy
told = {}
for name in morvit_deploy.__all__:
    try:
        getattr(morvit_deploy, name)
    except ImportError as error:
        told[name] = f"{type(error).__name__}: {error}"
print(json.dumps(told))
"""
    done = without(BASE, tmp_path, program)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert {"calibrate", "convert", "export", "load_checkpoint", "verify"} <= set(told)
    assert not {"bench", "open_bundle"} & set(told)
    for name, line in told.items():
        assert line.startswith(f"MissingExtraError: {name} requires ")
        assert line.endswith('; run `pip install "morvit-deploy[export]"`')


def test_every_library_is_in_the_extra_that_is_named() -> None:
    extras: dict[str, str] = {}
    for library in dependencies.libraries():  # core first: an extra may require a newer one of its libraries
        extras.setdefault(library.name, library.extra)
    for module, extra in EXTRAS.items():
        name = DISTRIBUTIONS.get(module, module)
        assert extras.get(name, extra) == extra, f"{name} of this system is in {extras[name]!r}"
    assert {"torch", "onnx", "matplotlib", "numpy", "onnxruntime"} <= set(extras)


def test_own_mistakes_stay_visible() -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such") as caught, names_extra("a command"):
        import morvit_deploy.no_such  # noqa: F401
    assert not isinstance(caught.value, MissingExtraError)
    with pytest.raises(ImportError, match="no_such") as broken, names_extra("a command"):
        from torch import no_such  # noqa: F401
    assert not isinstance(broken.value, MissingExtraError)


def test_the_error_is_caught_as_either_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert is_missing("ray")
    for kind in (TargetError, ModuleNotFoundError):
        with pytest.raises(kind, match=r"--ray requires ray"), names_extra("--ray"):
            import ray  # noqa: F401


def test_an_old_python_gets_one_line() -> None:
    program = "import sys; sys.version_info = (3, 9, 18); import morvit_deploy"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "morvit-deploy requires Python 3.10 or newer; this is 3.9.18\n"
    source = Path(morvit_deploy.__file__).read_text(encoding="utf-8")
    ast.parse(source, feature_version=(3, 8))  # no SyntaxError before the line is printed


def test_commands_need_no_home(tiny_bundle: Path, tmp_path: Path) -> None:
    env = {name: value for name, value in os.environ.items() if name not in ("HOME", "MPLCONFIGDIR")}
    for words in (
        ("doctor",),
        ("predict", tiny_bundle, IMAGE, "--upscale", "--depth-map", "maps"),
        ("inspect", MODEL, "--images", IMAGES, "--limit", 2, "-o", "shown"),
    ):
        command = [sys.executable, "-c", COMMAND, *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "maps").is_dir() and (tmp_path / "shown").is_dir()
