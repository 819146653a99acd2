"""Options are typed: a misspelt one is found by a type checker, and its error names the close match."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from commands import refused
from mypy import api as mypy

import morvit_deploy
from morvit_deploy import export
from morvit_deploy.errors import ConfigError
from morvit_deploy.exporters.coreml.contract.options import CoremlKeywords, CoremlOptions
from morvit_deploy.exporters.coreml.export import CoremlExporter
from morvit_deploy.exporters.onnx.export import OnnxExporter
from morvit_deploy.exporters.onnx.options import OnnxKeywords, OnnxOptions
from morvit_deploy.exporters.options import TargetOptions, options_of
from morvit_deploy.exporters.request import Request
from morvit_deploy.exporters.trt.export import TrtExporter
from morvit_deploy.exporters.trt.options import TrtKeywords, TrtOptions

ROOT = Path(morvit_deploy.__file__).parents[1]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"precison": "fp16"}, "precison: unknown option; did you mean precision?"),
        ({"target": "coreml", "layuot": "bc1s"}, "layuot: unknown option; did you mean layout?"),
        ({"xyzzy": 1}, "xyzzy: unknown option; the options are checkpoint, out, target"),
        ({"layout": "bc1s"}, "layout: only target coreml has this; target is 'onnx'"),
        ({"target": "trt", "options": CoremlOptions()}, "which are not of target 'trt'"),
        (
            {"target": "trt", "options": TrtOptions(), "flavor": "rtx"},
            "flavor: given beside options; put all of them into options",
        ),
        ({"input": "uint16"}, "input: got 'uint16', expected one of uint8, float"),
    ],
)
def test_a_wrong_keyword_is_one_message(tmp_path: Path, options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says.replace("?", r"\?")):
        export(tmp_path / "checkpoint", tmp_path / "out", **options)


def test_a_wrong_option_is_one_message(tmp_path: Path, inside: Path) -> None:
    assert "No such option: --precison" in refused("export", "checkpoint", "--precison", "fp16")


def test_a_request_has_the_options_of_its_target() -> None:
    request = Request(Path("checkpoint"), Path("out"), target="coreml", precision="fp16")
    assert request.options == CoremlOptions() and CoremlOptions.of(request).ios == 18


@pytest.mark.parametrize(
    ("kind", "keywords"),
    [(CoremlOptions, CoremlKeywords), (OnnxOptions, OnnxKeywords), (TrtOptions, TrtKeywords)],
    ids=["coreml", "onnx", "trt"],
)
def test_keywords_are_the_options(kind: type[TargetOptions], keywords: type) -> None:
    assert get_type_hints(keywords) == get_type_hints(kind)
    assert all(option.help for option in options_of(kind))


SNIPPET = """
from morvit_deploy.exporters.api import export

export("checkpoint", "out", target="coreml", precision="fp16", layout="bc1s", ios=18)
export("checkpoint", "out", precison="fp16")
export("checkpoint", "out", target="trt", flavr="rtx")
export("checkpoint", "out", target="coreml", layout="nchw")
"""


TYPES = (  # what the signature of `export` is made of
    *(
        "exporters/api",
        "exporters/options",
        "exporters/onnx/options",
        "exporters/coreml/contract/options",
        "exporters/coreml/contract/names",
    ),
    *("exporters/trt/options", "exporters/trt/names", "model/choices", "keywords", "machine/extras"),
)


@pytest.mark.slow
def test_a_type_checker_finds_a_misspelt_keyword(tmp_path: Path) -> None:
    package = tmp_path / "morvit_deploy"
    shutil.copytree(ROOT / "morvit_deploy", package, ignore=shutil.ignore_patterns("__pycache__", "kit"))
    snippet = tmp_path / "snippet.py"
    snippet.write_text(SNIPPET)
    files = [str(package / f"{name}.py") for name in TYPES]
    fast = ["--follow-imports", "skip", "--ignore-missing-imports", "--cache-dir", str(tmp_path / "cache")]
    report, _, status = mypy.run([*fast, "--config-file", "", str(snippet), *files])
    assert status == 1, report
    found = [line.split("error: ")[1] for line in report.splitlines() if "error: " in line]
    assert len(found) == 3, report
    assert found[0].startswith(
        'Unexpected keyword argument "precison" for "export"; did you mean "precision"'
    )
    assert found[1].startswith('Unexpected keyword argument "flavr" for "export"; did you mean "flavor"')
    assert 'Argument "layout" to "export" has incompatible type "Literal[\'nchw\']"' in found[2], report


@pytest.mark.parametrize(
    ("target", "precision", "remedy"),
    [
        ("onnx", "int8", "more or better --images, --calibration, --smooth or --max-drop may help"),
        ("onnx", "fp16", "--precision fp32, or more --images, may help"),
        ("trt", "bf16", "--precision fp32, or more --images, may help"),
        ("onnx", "w4", "--precision w8 keeps more, in less than twice the size"),
        ("coreml", "fp16", "--precision fp32, or --weights with more bits, may help"),
    ],
)
def test_only_options_that_the_precision_has_are_advised(
    target: str, precision: Any, remedy: str, tmp_path: Path
) -> None:
    writers = {"onnx": OnnxExporter, "trt": TrtExporter, "coreml": CoremlExporter}
    images = tmp_path if precision == "int8" else None
    request = Request(tmp_path, tmp_path / "out", target=target, precision=precision, images=images)
    assert writers[target]()._remedies(request) == remedy
