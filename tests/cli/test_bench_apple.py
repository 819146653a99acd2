"""`bench --device mac|iphone` on the command line, and the project of `--emit-project`, run as a program."""

from __future__ import annotations

import ast
import json
import platform
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from adaptive_plans import threshold_plan
from commands import answer, refused, run
from fake_coreml import Played, answers_of, coreml_bundle
from places import ROOT
from tiny_models import make_config

from morvit_deploy.errors import OutputError
from morvit_deploy.exporters.coreml.sdk.bundle import read_package
from morvit_deploy.measuring.apple import bench as apple_bench
from morvit_deploy.measuring.apple import running, script
from morvit_deploy.measuring.apple.project import CARRIED, carry

CONFIG = make_config()
OFF_MAC = pytest.mark.skipif(platform.system() == "Darwin", reason="there nothing may be missing")
ALLOWED = {
    "numpy",
    "coremltools",
    "coreai",
    "PIL",
    "rich",
}  # coreai only for its assets; Pillow for picture inputs; rich only to print on a terminal


@pytest.fixture(scope="module")
def source(exported: Callable[..., Path]) -> Path:
    plan = threshold_plan(CONFIG, (0.0, 0.0, 0.0), [(8, 5, 3)], [9])
    return exported(CONFIG, plan=plan, dispatch="host", batch=1)


@pytest.fixture(scope="module")
def bundle(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return coreml_bundle(source, tmp_path_factory.mktemp("coreml") / "bundle")


@pytest.fixture(autouse=True)
def expected(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Expected logits from the onnx bundle: the package made by hand computes a mean."""
    monkeypatch.setattr(apple_bench, "interpreted", lambda folder, manifest: answers_of(source))


@pytest.fixture
def played(source: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A Mac and a phone that have everything; the dictionary holds options of what plays Core ML."""
    options: dict[str, Any] = {}

    @contextmanager
    def backend(package: Any, wish: Any, phone: Any) -> Iterator[Played]:
        yield Played(source, package, device=wish.device, **options)

    monkeypatch.setattr(running, "backend_for", backend)
    monkeypatch.setattr(apple_bench, "look", lambda package, wish, way_out: None)
    monkeypatch.setattr(script, "look", lambda package, wish, way_out: None)
    return options


@pytest.fixture
def project(bundle: Path, tmp_path: Path) -> Path:
    result = run("bench", bundle, "--emit-project", tmp_path / "project")
    assert result.exit_code == 0, result.output
    return tmp_path / "project"


def script_of(
    project: Path, *words: object, python: str = sys.executable
) -> subprocess.CompletedProcess[str]:
    """Run the project's own bench.py, in another folder."""
    line = [python, str(project / "bench.py"), *map(str, words)]
    return subprocess.run(line, capture_output=True, text=True, check=False, cwd=project.parent)


# measuring


@pytest.mark.parametrize("device", ["mac", "iphone"])
def test_measures(played: dict, bundle: Path, tmp_path: Path, device: str) -> None:
    quick = ("--runs", 10, "--blocks", 1)
    data = answer("bench", bundle, "--device", device, *quick, "-o", tmp_path / "r.json")
    written = json.loads((tmp_path / "r.json").read_text())
    assert written.pop("report")["parts"] and data == written
    assert data["format"] == "morvit-bench/1" and data["device"] == device
    assert [one["compute_units"] for one in data["bundles"]] == ["all", "cpu_ne", "cpu_gpu", "cpu"]
    assert "thermal state cannot be read" in " ".join(data["warnings"])


def test_prints_tables(played: dict, bundle: Path) -> None:
    result = run("bench", bundle, "--device", "mac", "--runs", 10, "--blocks", 1, "--compute-units", "cpu")
    assert result.exit_code == 0, result.output
    for title in ("Warm latency by compute units", "Over the mix", "Placement", "Parity on the device"):
        assert title in result.stdout
    assert "cpu_ne" not in result.stdout


def test_wrong_bucket_exits_1(played: dict, bundle: Path, tmp_path: Path) -> None:
    played["spoil"] = lambda units, name, outputs: (
        outputs | {"logits": outputs["logits"] * 0 + 9} if name == "b0" and units == "cpu_ne" else outputs
    )
    result = run("bench", bundle, "--device", "iphone", "-o", tmp_path / "r.json")
    assert result.exit_code == 1, result.output
    wrong = "compute units 'cpu_ne' returns wrong logits for bucket 'b0'"
    assert wrong in " ".join(result.stderr.split()) and "Failed compute units" in result.stdout
    measured = json.loads((tmp_path / "r.json").read_text())["bundles"]
    assert {one["compute_units"] for one in measured} == {"all", "cpu_gpu", "cpu"}, "nothing wrong is timed"


def test_lost_phone_keeps_what_was_measured(played: dict, bundle: Path, tmp_path: Path) -> None:
    played["lost_after"], played["together"] = 150, False
    quick = ("--runs", 10, "--blocks", 2, "--compute-units", "all", "--compute-units", "cpu")
    result = run("bench", bundle, "--device", "iphone", *quick, "-o", tmp_path / "r.json")
    assert result.exit_code == 2, result.output
    assert "ended early" in result.stderr and "unlock it" in result.stderr
    data = json.loads((tmp_path / "r.json").read_text())
    assert data["bundles"] and data["conditions"]["ended_early"]["exit_status"] == 2


# what is missing


@OFF_MAC
@pytest.mark.parametrize("device", ["mac", "iphone"])
def test_lists_what_is_missing(bundle: Path, device: str) -> None:
    message = refused("bench", bundle, "--device", device)
    assert (
        f"--device {device} cannot measure here. Looked for:" in message and "--emit-project DIR" in message
    )
    assert f"this is {platform.system()}" in message and "found coremltools 9: 9." in message
    assert "MISSING coremltools' bridge to Core ML" in message
    if device == "iphone":
        assert "MISSING xcrun devicectl" in message and "MISSING one iPhone" in message


@OFF_MAC
@pytest.mark.parametrize("device", ["mac", "iphone"])
def test_the_system_is_named_before_a_bundle_is_opened(inside: Path, device: str) -> None:
    for words in (["no such bundle"], []):
        message = refused("bench", *words, "--device", device)
        assert f"this is {platform.system()}" in message and "no such bundle" not in message


def test_other_target(played: dict, source: Path) -> None:
    for words in (("--device", "mac"), ("--emit-project", "p")):
        assert "export CHECKPOINT --target coreml" in refused("bench", source, *words)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--compute-units", "cpu"), "--compute-units: for --device mac or iphone; got device 'cpu'"),
        (("--phone", "Ada"), "--phone: for --device mac or iphone"),
        (("--device", "mac", "--phone", "Ada"), "--phone: for --device iphone; got device 'mac'"),
        (
            ("--device", "mac", "--compute-units", "npu"),
            "got npu, expected all, cpu_ne, cpu_gpu, cpu, or compare",
        ),
        (("--device", "mac", "--threads", "2"), "--threads have no meaning"),
        (("--device", "iphone", "--verdict"), "got device 'iphone'; this is measured on: cpu"),
        (("--device", "mac", "--against", "x", "--batch", "8"), "--against, --batch have no meaning"),
        (
            ("--device", "watch"),
            "got device 'watch'; this version measures on: cpu, cuda, mac, iphone, jetson, ssh",
        ),
        (("--emit-project", "p", "--runs", "20"), "--runs say how to measure"),
        (("--emit-project", "p", "-o", "r.json"), "--out say how to measure"),
    ],
)
def test_options_that_do_not_go_together(bundle: Path, words: tuple[str, ...], says: str) -> None:
    assert says in refused("bench", bundle, *words)


def test_edited_bundle(played: dict, bundle: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    next(copy.rglob("weight.bin")).write_bytes(b"x")
    for words in (("--device", "mac"), ("--emit-project", tmp_path / "p")):
        assert "weight.bin" in refused("bench", copy, *words)
    assert not (tmp_path / "p").exists()


# the project


def test_project_is_complete(project: Path, bundle: Path) -> None:
    assert {p.name for p in project.iterdir()} == {
        *("bench.py", "README.md", "requirements.txt", "project.json", "bundle", "golden", "morvit_deploy")
    }
    held = {p.relative_to(bundle): p.read_bytes() for p in bundle.rglob("*") if p.is_file()}
    copied = project / "bundle"
    assert held == {p.relative_to(copied): p.read_bytes() for p in copied.rglob("*") if p.is_file()}
    assert not any((bundle / name).samefile(copied / name) for name in held)  # no links
    assert read_package(copied).functions == ("stem", "b0", "full")
    assert "coremltools>=9.0" in (project / "requirements.txt").read_text()
    readme = (project / "README.md").read_text()
    assert "macOS 15" in readme and "bench.py --device iphone" in readme and "{" not in readme


def test_carried_modules_are_the_ones_here(project: Path) -> None:
    """One implementation: byte for byte, and nothing beside them."""
    carried = {p.relative_to(project).as_posix(): p for p in (project / "morvit_deploy").rglob("*.py")}
    for name, file in carried.items():
        here = ROOT / name.replace("morvit_deploy/exporters", "exporters")
        assert file.read_bytes() == here.read_bytes(), name
    assert len(carried) == len(CARRIED) == len(set(CARRIED))


def test_carried_modules_need_only_one_another(project: Path) -> None:
    """Whatever they import, at the top or inside, is in the project, the standard library or requirements.txt."""
    for file in (project / "morvit_deploy").rglob("*.py"):
        if file == project / "morvit_deploy" / "__init__.py":
            continue  # its public names load on first use, and nothing here uses them
        tree = ast.parse(file.read_text())
        for block in ast.walk(tree):
            if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test):
                block.body = []
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            for name in names:
                top = name.split(".")[0]
                if top == "morvit_deploy":
                    assert name in CARRIED, f"{file.name} imports {name}"
                else:
                    assert top in sys.stdlib_module_names or top in ALLOWED, f"{file.name} imports {name}"


def test_project_asks_for_help(project: Path) -> None:
    told = script_of(project, "--help")
    assert told.returncode == 0 and "--compute-units" in told.stdout, told.stderr


@OFF_MAC
@pytest.mark.parametrize("device", ["mac", "iphone"])
def test_project_lists_what_is_missing(project: Path, device: str) -> None:
    told = script_of(project, "--device", device)
    assert told.returncode == 2 and told.stdout == "", told.stderr
    assert f"error: --device {device} cannot measure here" in told.stderr and "Traceback" not in told.stderr
    assert "MISSING macOS" in told.stderr and "Copy this folder to a Mac" in told.stderr


@OFF_MAC
@pytest.mark.slow
def test_project_runs_with_numpy_alone(project: Path, tmp_path: Path) -> None:
    """A Python that has neither this package nor its other dependencies."""
    venv.create(tmp_path / "bare", with_pip=False, symlinks=True)
    bare = tmp_path / "bare"
    site = next((bare / "lib").glob("python*/site-packages"))
    installed = Path(np.__file__).parent
    for folder in (installed, installed.with_name("numpy.libs")):
        if folder.exists():
            (site / folder.name).symlink_to(folder)
    told = script_of(project, python=str(bare / "bin" / "python"))
    assert told.returncode == 2, told.stderr
    assert 'MISSING coremltools 9: not installed; python -m pip install "coremltools>=9.0,<10"' in told.stderr


def test_project_measures(
    played: dict, project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "result.json"
    words = ("--runs", "10", "--blocks", "1", "-o", str(out))
    assert script.main(project, words) == 0
    printed = capsys.readouterr()
    assert "Warm latency by compute units" in printed.out and "loading stem" in printed.err
    data = json.loads(out.read_text())
    assert data["format"] == "morvit-bench/1" and len(data["bundles"]) == 4
    assert (
        data["conditions"]["inputs"] == "synthetic pictures"
        and data["bundles"][0]["mix"]["fed"]["expected_ms"]
    )
    assert script.main(project, words) == 2 and "pass --force" in capsys.readouterr().err
    played["spoil"] = lambda units, name, outputs: (
        outputs | ({"logits": -outputs["logits"]} if name == "full" else {})
    )
    assert script.main(project, (*words, "--force")) == 1
    assert "returns wrong logits for bucket 'full'" in capsys.readouterr().err


def test_edited_project(played: dict, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = next((project / "bundle").rglob("weight.bin"))
    weights.write_bytes(weights.read_bytes() + b"x")
    assert script.main(project, ()) == 2
    assert "content differs" in capsys.readouterr().err
    for text, says in {
        "{}": "is not of format morvit-bench-project/1",
        "[": "write the project again",
    }.items():
        (project / "project.json").write_text(text)
        shutil.rmtree(project / "bundle", ignore_errors=True)
        with pytest.raises(Exception, match=says):
            script.read_goldens(project)


def test_project_in_json(bundle: Path, tmp_path: Path) -> None:
    data = answer("bench", bundle, "--emit-project", tmp_path / "p", "--device", "iphone")
    assert data["project"] == str(tmp_path / "p") and len(data["run"]) == 3


def test_project_from_own_pictures(bundle: Path, image_files: list[Path], tmp_path: Path) -> None:
    result = run("bench", bundle, "--emit-project", tmp_path / "p", "--images", image_files[0].parent)
    assert result.exit_code == 0, result.output
    known = json.loads((tmp_path / "p" / "project.json").read_text())
    assert known["inputs"].startswith("pictures of") and "6 pictures" in known["mix"]
    assert sum(known["shares"].values()) == pytest.approx(1)


def test_project_is_replaced_only_with_force(project: Path, bundle: Path, tmp_path: Path) -> None:
    assert "pass --force" in refused("bench", bundle, "--emit-project", project)
    (project / "left").write_text("x")
    assert "also holds left" in refused("bench", bundle, "--emit-project", project, "--force")
    (project / "left").unlink()  # it was nothing of ours
    assert run("bench", bundle, "--emit-project", project, "--force").exit_code == 0
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "mine").write_text("x")
    message = refused("bench", bundle, "--emit-project", foreign, "--force")
    assert "replaces only what this tool wrote" in message and (foreign / "mine").exists()


@pytest.mark.parametrize("place", ["inside", ".", ".."])
def test_project_and_bundle_stay_apart(bundle: Path, place: str) -> None:
    before = sorted(bundle.rglob("*"))
    message = refused("bench", bundle, "--emit-project", bundle / place, "--force")
    assert "inside the bundle" in message or "contains the bundle" in message
    assert sorted(bundle.rglob("*")) == before


def test_project_is_whole_or_absent(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from morvit_deploy.measuring.apple import project as writing

    def full(*_: object) -> None:
        raise OutputError("no space")

    monkeypatch.setattr(writing, "carry", full)
    refused("bench", bundle, "--emit-project", tmp_path / "p")
    assert list(tmp_path.iterdir()) == []


def test_carrying_knows_packages_from_modules(tmp_path: Path) -> None:
    carry(("morvit_deploy.measuring", "morvit_deploy.errors"), tmp_path)
    assert (tmp_path / "morvit_deploy" / "measuring" / "__init__.py").is_file()
    assert (tmp_path / "morvit_deploy" / "errors.py").is_file()
