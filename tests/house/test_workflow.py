"""The GitHub Actions workflow of `catch-slowdowns.md`: YAML that GitHub takes, and commands that the tool takes."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from places import ROOT
from typer.main import get_command

from morvit_deploy.cli import app

PAGE = ROOT / "docs" / "how-to" / "catch-slowdowns.md"
EXPRESSION = re.compile(r"\$\{\{.*?\}\}")


@pytest.fixture(scope="module")
def workflow() -> dict[Any, Any]:
    yaml = pytest.importorskip("yaml")
    (block,) = re.findall(r"^```yaml\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    found: dict[Any, Any] = yaml.safe_load(block)
    return found


def steps(workflow: dict[Any, Any]) -> list[dict[str, Any]]:
    (job,) = workflow["jobs"].values()
    found: list[dict[str, Any]] = job["steps"]
    return found


def commands(workflow: dict[Any, Any]) -> list[list[str]]:
    """The words of each command of the `run` steps."""
    lines = "\n".join(step["run"] for step in steps(workflow) if "run" in step).replace("\\\n", " ")
    return [shlex.split(EXPRESSION.sub("main", line)) for line in lines.splitlines() if line.strip()]


def test_it_is_a_workflow(workflow: dict[Any, Any]) -> None:
    assert {*workflow} == {"name", True, "jobs"}, "YAML 1.1 reads `on` as true"
    (job,) = workflow["jobs"].values()
    assert {*job} == {"runs-on", "steps"}
    for step in job["steps"]:
        assert {*step} <= {"name", "run", "uses", "with", "if"} and ("run" in step) != ("uses" in step)
        assert re.fullmatch(r"actions/[\w-]+@v\d+", step.get("uses", "actions/x@v1"))


def test_its_commands_are_the_tool_s(workflow: dict[Any, Any]) -> None:
    """Every `morvit-deploy` line, and the one that runs the target branch's code."""
    known = get_command(app).commands  # type: ignore[attr-defined]
    run = []
    for words in commands(workflow):
        if "morvit-deploy" in words[0]:
            name, *rest = words[1:]
        elif any("from morvit_deploy.cli import main" in word for word in words):
            name, *rest = words[words.index("-c") + 2 :]
        else:
            assert words[0] in ("pip", "git"), words
            continue
        known[name].make_context(name, [*rest])
        run.append(name)
    assert run == ["export", "export", "bench", "bench"]


def test_its_files_are_those_that_it_wrote(workflow: dict[Any, Any]) -> None:
    written = {
        words[words.index(option) + 1]
        for words in commands(workflow)
        for option in ("-o", "--report")
        if option in words
    }
    (upload,) = (step["with"]["path"].split() for step in steps(workflow) if "upload" in step.get("uses", ""))
    assert {*upload} == {name for name in written if name.endswith((".json", ".html"))}
    measured = [words[2] for words in commands(workflow) if words[:2] == ["morvit-deploy", "bench"]]
    assert {*measured} <= written, "what is measured was exported before"


@pytest.mark.skipif(sys.version_info < (3, 11), reason="the workflow's Python is 3.11, which has -P")
def test_the_target_branch_s_bundle_is_made_by_its_code(workflow: dict[Any, Any], tmp_path: Path) -> None:
    """The checkout in the current folder must not be imported in the place of what PYTHONPATH names."""
    (words,) = (words for words in commands(workflow) if any("import main" in word for word in words))
    assert words[:2] == ["PYTHONPATH=base-site", "python"]
    for folder in (tmp_path, tmp_path / "base-site"):
        package = folder / "morvit_deploy"
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        (package / "cli.py").write_text(f"main = lambda: print({folder.name!r})")
    done = subprocess.run(
        [sys.executable, *words[2:]], cwd=tmp_path, env=os.environ | {"PYTHONPATH": "base-site"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip  # two lines read better than seven
    assert done.stdout.split() == ["base-site"]
