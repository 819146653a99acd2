"""Runs ONNX graphs with ONNX Runtime on the CPU."""

from __future__ import annotations

from pathlib import Path

import onnxruntime as ort

from morvit_deploy.agent.core.faults import Refused
from morvit_deploy.agent.core.recipe import Recipe
from morvit_deploy.agent.core.releases import check_release
from morvit_deploy.agent.core.running import Arrays, HostDispatch, Runner

_STOP_SPINNING = "session.force_spinning_stop"
NO_INTEGER_KERNELS = "session.disable_quant_qdq"  # float products of Q/DQ values
_WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"
NOT_INTEGERS = " (int8 values multiplied in float: like TensorRT's, their sums do not saturate)"


class OrtRunner(Runner):
    """One ONNX Runtime session on the CPU provider.

    If it is not `alone`, its threads sleep between runs: spinning, they would take cores from the next session.
    Without `integers`, a Q/DQ graph computes float products of its rounded values, whose sums cannot saturate.
    Raises Refused when the runtime cannot load the graph, a file or its bytes.
    """

    runtime = f"ONNX Runtime {ort.__version__}, CPU"

    def __init__(
        self,
        graph: Path | bytes,
        folder: Path,
        threads: int,
        written_with: str | None = None,
        *,
        alone: bool = True,
        integers: bool = True,
    ) -> None:
        options = session_options(folder, threads, alone=alone, integers=integers)
        if not integers:
            self.runtime += NOT_INTEGERS
        try:
            given = graph if isinstance(graph, bytes) else str(graph)
            self.session = ort.InferenceSession(given, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime and protobuf raise types of their own
            name = folder if isinstance(graph, bytes) else graph
            raise Refused(
                f"ONNX Runtime {ort.__version__} cannot load {name}: {error}; "
                f"the bundle was written with onnxruntime {written_with or 'unknown'}"
            ) from error
        self._names = [output.name for output in self.session.get_outputs()]

    def run(self, feeds: Arrays) -> Arrays:
        return dict(zip(self._names, self.session.run(self._names, feeds)))

    def close(self) -> None:
        del self.session


def session_options(
    folder: Path, threads: int, *, alone: bool = True, integers: bool = True
) -> ort.SessionOptions:
    """The options of an `OrtRunner`; weights are read from `folder`."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.add_session_config_entry(_WEIGHTS_FOLDER, str(folder))
    options.add_session_config_entry(_STOP_SPINNING, "0" if alone else "1")
    options.add_session_config_entry(NO_INTEGER_KERNELS, "0" if integers else "1")
    return options


def check_onnxruntime(lowest: str | None, what: str) -> None:
    """Lacking if `what` requires a newer ONNX Runtime: an older one may end the process when it loads a graph."""
    if lowest is not None:
        check_release("onnxruntime", ort.__version__, lowest, what)


def open_recipe(folder: Path, recipe: Recipe, threads: int, bucket: str | None) -> Runner:
    """The runner of a bundle whose files have been checked; with `bucket`, of that bucket's graph alone."""
    check_onnxruntime(recipe.more.get("lowest"), recipe.name)
    written_with, integers = recipe.written_with.get("onnxruntime"), recipe.more.get("integers", True)
    if bucket is not None:
        return OrtRunner(folder / recipe.alone[bucket], folder, threads, written_with, integers=integers)
    if recipe.dispatch != "host":
        return OrtRunner(folder / recipe.graphs["model"], folder, threads, written_with, integers=integers)

    def part(name: str) -> Runner:
        graph = folder / recipe.graphs[name]
        return OrtRunner(graph, folder, threads, written_with, alone=False, integers=integers)

    return HostDispatch(recipe.buckets, recipe.batch, recipe.carried, part("stem"), part)
