"""Bundles as apps load them: converted to ORT format, and from bytes without a file of weights."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from adaptive_plans import threshold_plan
from exported_cases import exported_cases
from places import EXAMPLES
from tiny_models import make_config, normalised, random_model, random_pixels

from morvit_deploy import open_bundle
from morvit_deploy.agent.core.running import Arrays, Runner
from morvit_deploy.bundle.manifest import Manifest, open_manifest
from morvit_deploy.bundle.session import HostDispatch, Session
from morvit_deploy.exporters.onnx.graphs.names import WEIGHTS, graph_files

TOLERANCE = 1e-4  # float32 against float64, as of the runtimes in `make runtimes`
SAME = 1e-5  # one graph in one runtime, optimized at another time
PLAN = threshold_plan(make_config(), (0.1, 0.0, 0.2), [(9, 5, 2)])
CASES: dict[str, dict[str, Any]] = {
    "fp32": {"with_depth": True},
    "fp16": {"precision": "fp16", "min_agreement": 0.9},
    "int8": {"precision": "int8", "allow_worse": True, "limit": 12},
    "adaptive, graph": {"plan": PLAN, "dispatch": "graph", "with_depth": True},
    "adaptive, host": {"plan": PLAN, "dispatch": "host", "with_depth": True},
}
PIXELS = random_pixels(make_config(), 12, seed=5)


class Loaded(Runner):
    """A session that was made in another way."""

    def __init__(self, session: ort.InferenceSession) -> None:
        self.session = session

    def run(self, feeds: Arrays) -> Arrays:
        names = [output.name for output in self.session.get_outputs()]
        return dict(zip(names, self.session.run(names, feeds), strict=True))


@pytest.fixture(scope="module")
def bundles(exported: Callable[..., Path], calibration_folder: Path) -> Iterator[Callable[[str], Path]]:
    with exported_cases(CASES, exported, calibration_folder) as bundle:
        yield bundle


def outputs(bundle: Path, load: Callable[[str], ort.InferenceSession]) -> Arrays:
    """All outputs for PIXELS of a bundle whose parts `load` loads by name."""
    manifest = open_manifest(bundle)
    with Session(bundle, manifest, dispatching(manifest, lambda part: Loaded(load(part)))) as session:
        return session.run(PIXELS)


def dispatching(manifest: Manifest, load: Callable[[str], Runner]) -> Runner:
    if manifest.dispatch == "host":
        return HostDispatch(manifest, load("stem"), load)
    return load("model")


def check(bundle: Path, found: Arrays) -> None:
    """The outputs are those of the opened bundle, and in fp32 with one bucket those of the float64 reference."""
    with open_bundle(bundle, threads=1) as session:
        expected, manifest = session.run(PIXELS), session.manifest
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        gap = np.abs(found[name].astype(float) - values.astype(float)).max()
        assert gap <= (SAME if name == "logits" else 0), name
    if manifest.exact and not manifest.plan.adaptive:
        reference = (
            random_model(make_config()).double()(normalised(make_config(), PIXELS)).logits.numpy(force=True)
        )
        assert np.abs(found["logits"] - reference).max() <= TOLERANCE * max(1.0, np.abs(reference).max())


@pytest.fixture(scope="module")
def converted(bundles: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each case with its graphs in ORT format, by the command of docs/onnx.md."""
    folder = tmp_path_factory.mktemp("converted")
    for case in CASES:
        shutil.copytree(bundles(case), folder / case)
    tool = "onnxruntime.tools.convert_onnx_models_to_ort"
    words = [sys.executable, "-m", tool, folder, "--optimization_style", "Fixed"]
    subprocess.run(words, capture_output=True, check=True)
    return folder


@pytest.mark.parametrize("case", CASES)
def test_it_is_converted_to_ort_format(case: str, bundles: Callable[[str], Path], converted: Path) -> None:
    bundle, manifest = bundles(case), open_manifest(bundles(case))
    files = {path.stem: path for path in (converted / case).glob("*.ort")}
    assert files.keys() == graph_files(manifest.dispatch, manifest.plan).keys()
    check(bundle, outputs(bundle, lambda part: one_thread(str(files[part]))))


def test_converted_graphs_have_no_operator_of_one_processor(converted: Path) -> None:
    operators = (converted / "required_operators.config").read_text()
    assert "LayerNormalization" in operators and "nchwc" not in operators


@pytest.mark.parametrize("case", CASES)
def test_it_loads_from_bytes(
    case: str, bundles: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = bundles(case)
    files = {path.name: path.read_bytes() for path in bundle.iterdir()}
    monkeypatch.chdir(tmp_path)  # no weights.bin here

    def load(part: str) -> ort.InferenceSession:
        return one_thread(files[f"{part}.onnx"], files[WEIGHTS])

    check(bundle, outputs(bundle, load))


def one_thread(graph: str | bytes, weights: bytes | None = None) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    if weights is not None:
        options.add_external_initializers_from_files_in_memory([WEIGHTS], [weights], [len(weights)])
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def test_the_example_runs(bundles: Callable[[str], Path], tmp_path: Path) -> None:
    words = [sys.executable, EXAMPLES / "onnxruntime_bytes.py", bundles("fp32")]
    done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=tmp_path)
    (logits,) = json.loads(done.stdout)
    assert len(logits) == make_config().num_classes
