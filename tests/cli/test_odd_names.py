"""Names that are not UTF-8, which Linux allows: pictures may have them, models may not."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from calibration_setup import save_pictures
from commands import refused, run

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")

ODD = os.fsdecode(b"n\xff")
SHOWN = "n\\xff"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = save_pictures(tmp_path / "pictures", 4)
    for path in [*folder.glob("*.png")]:
        path.rename(path.with_name(f"{ODD}{path.name}"))
    return folder


@pytest.mark.parametrize(
    "words",
    [
        ("export", "CHECKPOINT", "-o", "ODD"),
        ("convert", "CHECKPOINT", "-o", "ODD"),
        ("init", "--preset", "morvit_tiny_digits", "-o", "ODD"),
        ("inspect", "COPY"),
        ("convert", "COPY", "-o", "out"),
        ("predict", "BUNDLE_COPY", "PICTURES"),
        ("verify", "BUNDLE_COPY", "--checkpoint", "CHECKPOINT"),
    ],
    ids=" ".join,
)
def test_a_model_is_neither_read_nor_written_there(
    words: tuple[str, ...], tiny_checkpoint: Path, tiny_bundle: Path, pictures: Path, inside: Path
) -> None:
    places = {"CHECKPOINT": tiny_checkpoint, "ODD": Path(ODD), "PICTURES": pictures}
    for name, source in (("COPY", tiny_checkpoint), ("BUNDLE_COPY", tiny_bundle)):
        places[name] = Path(f"{ODD}-{name}")
        places[name].symlink_to(source)
    message = refused(*(places.get(word, word) for word in words))
    assert SHOWN in message and "expected one in UTF-8" in message and "rename it" in message
    assert not Path(ODD).exists() and not Path("out").exists()


def test_pictures_are_counted_and_shown(
    tiny_checkpoint: Path, pictures: Path, inside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("calibrate", tiny_checkpoint, "--images", pictures, "-o", "plan.json", "--report", f"{ODD}.md")
    monkeypatch.setattr(sys, "argv", ["morvit-deploy", *map(str, words)])
    result = run(*words)
    assert result.exit_code == 0, result.output
    assert "\\udcff.md" in Path(f"{ODD}.md").read_text(encoding="utf-8"), "in the command that repeats it"


def test_statistics_of_a_picture_that_cannot_be_read(
    tiny_checkpoint: Path, pictures: Path, inside: Path
) -> None:
    next(pictures.iterdir()).write_bytes(b"no picture")
    words = ("calibrate", tiny_checkpoint, "--images", pictures, "--stats", "st", "--max-bad", "1")
    for part in ("1/2", "2/2"):
        result = run(*words, "--shard", part)
        assert result.exit_code == 0, result.output


def test_json_on_stdout_is_utf8(tiny_bundle: Path, pictures: Path) -> None:
    result = run("predict", tiny_bundle, pictures, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout_bytes.decode("utf-8"))["predictions"]
    assert [one["image"] for one in found] == [str(path) for path in sorted(pictures.iterdir())]
