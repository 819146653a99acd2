"""`--reference` of `convert`, `export` and `verify`: refused, recorded, and what reports say without it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from commands import answer, refused, run
from foreign_checkpoints import SAID, SAY, saved, vit
from source_outputs import outputs_of, written

from morvit_deploy import export, verify
from morvit_deploy.agent.core.recipe import sha256_of
from morvit_deploy.bundle.manifest import open_manifest
from morvit_deploy.errors import ConfigError, ParityError
from morvit_deploy.sources.conversion import read_model
from morvit_deploy.sources.outputs.gap import NOT_CHECKED
from morvit_deploy.sources.settings.given import Given


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source, right and wrong outputs, a checkpoint and bundles of it."""
    folder = tmp_path_factory.mktemp("reference")
    saved(vit("aaa"), folder / "m.pth")
    arrays = outputs_of(read_model(folder / "m.pth", Given(**SAID)).model)
    written(folder / "right.npz", **arrays)
    written(folder / "wrong.npz", **arrays | {"logits": arrays["logits"] + np.sin(99 * arrays["logits"])})
    ended = run(
        "convert", folder / "m.pth", "-o", folder / "checked", *SAY, "--reference", folder / "right.npz"
    )
    assert ended.exit_code == 0 and "reading checked against the source's own outputs" in " ".join(
        ended.stdout.split()
    )
    ended = run("convert", folder / "m.pth", "-o", folder / "unchecked", *SAY)
    assert ended.exit_code == 0 and f"reading {NOT_CHECKED}" in " ".join(ended.stdout.split())
    export(folder / "unchecked", folder / "plain")
    return folder


def test_convert_records_what_was_checked(made: Path) -> None:
    record = json.loads((made / "checked" / "config.json").read_text())["provenance"]["reference"]
    assert record["sha256"] == sha256_of(made / "right.npz")
    assert record["compared"] == record["total"] == 6 and 0 < record["max_abs"] < record["tolerance"]
    assert "reference" not in json.loads((made / "unchecked" / "config.json").read_text())["provenance"]


def test_convert_refuses_other_logits(made: Path, tmp_path: Path) -> None:
    words = ("convert", made / "m.pth", *SAY, "--reference", made / "wrong.npz")
    message = refused(*words, "-o", tmp_path / "out", status=1)
    assert (
        "was not converted: the checkpoint as it was read does not return the source's own logits" in message
    )
    assert "max |Δlogit| 0.9" in message and message.index("pooling") < message.index("normalization")
    assert "(command line, --preprocess imagenet)" in message
    assert refused(*words, "--explain", status=1) == message.replace(" writing ...", "")
    assert not list(tmp_path.iterdir())


def test_explain_checks_too(made: Path) -> None:
    data = answer("convert", made / "m.pth", "--explain", *SAY, "--reference", made / "right.npz")
    assert data["reference"]["passed"] and data["checkpoint"] is None


def test_export_refuses_before_it_exports(made: Path, tmp_path: Path) -> None:
    for source in (made / "unchecked", made / "checked"):
        message = refused("export", source, "-o", tmp_path / "b", "--reference", made / "wrong.npz", status=1)
        assert (
            "no bundle was written: the checkpoint as it was read" in message and "unrolling" not in message
        )
    with pytest.raises(ParityError, match="no bundle was written"):
        export(made / "checked", tmp_path / "b", reference=made / "wrong.npz")
    assert not list(tmp_path.iterdir())


def test_export_records_in_the_manifest(made: Path, tmp_path: Path) -> None:
    done = export(made / "unchecked", tmp_path / "b", reference=str(made / "right.npz"))
    record = open_manifest(tmp_path / "b").reference
    assert (
        record == done.verification.source
        and record is not None
        and record.sha256 == sha256_of(made / "right.npz")
    )
    parity = done.manifest.parity
    assert parity is not None and parity["source_gap"]["passed"] and "checked against" in parity["reading"]
    done = export(made / "checked", tmp_path / "c")
    assert done.manifest.reference is not None and done.manifest.parity is not None
    assert (
        done.manifest.parity["source_gap"] is None
        and "checked by `convert`" in done.manifest.parity["reading"]
    )


def test_a_manifest_without_the_field_still_opens(made: Path) -> None:
    path = made / "plain" / "manifest.json"
    fields = json.loads(path.read_text())
    assert fields.pop("reference") is None
    path.write_text(json.dumps(fields))
    assert open_manifest(made / "plain").reference is None


def test_verify_judges_and_reports(made: Path) -> None:
    words = ("verify", made / "plain", "--checkpoint", made / "unchecked")
    ended = run(*words)
    assert ended.exit_code == 0 and f"reading of the checkpoint: {NOT_CHECKED}" in " ".join(
        ended.stdout.split()
    )
    ended = run(*words, "--reference", made / "right.npz")
    assert ended.exit_code == 0 and "source gap" in ended.stdout
    data = answer(*words, "--reference", made / "right.npz")
    assert data["passed"] and data["source_gap"]["compared"] == 6
    ended = run(*words, "--reference", made / "wrong.npz")
    assert ended.exit_code == 1 and "FAIL" in ended.stdout
    assert "does not return the source's own logits" in ended.stderr and "    - pooling" in ended.stderr
    found = verify(made / "plain", made / "unchecked", reference=made / "wrong.npz")
    assert not found.passed and not found.only_gate_missed and not found.as_dict()["passed"]


@pytest.mark.parametrize("command", ["convert", "export", "verify"])
def test_a_file_that_is_none(made: Path, tmp_path: Path, command: str) -> None:
    words = {
        "convert": (made / "m.pth", "-o", tmp_path / "out", *SAY),
        "export": (made / "checked", "-o", tmp_path / "out"),
        "verify": (made / "plain", "--checkpoint", made / "checked"),
    }[command]
    message = refused(command, *words, "--reference", made / "m.pth")
    assert "--reference: " in message and "is not a complete .npz file" in message
    assert not list(tmp_path.iterdir())


def test_python_names_the_option(made: Path) -> None:
    with pytest.raises(ConfigError, match=r"--reference: .*none.npz does not exist"):
        verify(made / "plain", made / "checked", reference=made / "none.npz")
