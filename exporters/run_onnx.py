"""Runs an ONNX bundle with ONNX Runtime on the CPU. No torch."""

from __future__ import annotations

from pathlib import Path

import onnxruntime as ort

from morvit_deploy.bundle import Manifest
from morvit_deploy.devices import checked_threads
from morvit_deploy.errors import BundleError
from morvit_deploy.runtime import Arrays, Runner

GRAPH, WEIGHTS = "model.onnx", "weights.bin"
_WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"


class OnnxRunner(Runner):
    """One ONNX Runtime session on the CPU provider, which is named: no silent choice of another."""

    def __init__(self, folder: Path, manifest: Manifest, threads: int | None, probes: bool = False) -> None:
        unlisted = {GRAPH, WEIGHTS} - {file.path for file in manifest.files}
        if unlisted:  # what is not listed was not checked
            raise BundleError(f"{folder / 'manifest.json'} does not list {sorted(unlisted)}; export it again")
        options = ort.SessionOptions()
        options.intra_op_num_threads = checked_threads(threads)
        options.log_severity_level = 3
        options.add_session_config_entry(_WEIGHTS_FOLDER, str(folder))
        try:
            graph = _with_probes(folder / GRAPH, manifest.probes) if probes else str(folder / GRAPH)
            self._session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime and protobuf raise types of their own
            raise BundleError(
                f"ONNX Runtime {ort.__version__} cannot load {folder / GRAPH}: {error}; "
                f"the bundle was written with onnxruntime {manifest.versions.get('onnxruntime', 'unknown')}"
            ) from error
        self._names = [output.name for output in self._session.get_outputs()]
        _check_ports(folder, manifest, self._session)

    def run(self, feeds: Arrays) -> Arrays:
        return dict(zip(self._names, self._session.run(self._names, feeds), strict=True))

    def close(self) -> None:
        del self._session


def _check_ports(folder: Path, manifest: Manifest, session: ort.InferenceSession) -> None:
    """The graph's inputs and outputs are those of the manifest."""
    told = {port.name: list(port.shape) for port in (*manifest.inputs, *manifest.outputs)}
    values = (*session.get_inputs(), *session.get_outputs())
    found = {value.name: list(value.shape) for value in values if value.name not in manifest.probes}
    if told != found:
        raise BundleError(f"{folder}: its manifest says {told}, the graph has {found}; export it again")


def _with_probes(path: Path, probes: tuple[str, ...]) -> bytes:
    """The same graph with values inside it as further outputs; the file on disk stays as it is."""
    import onnx  # noqa: TID251  # only verify asks for probes

    model = onnx.load(path, load_external_data=False)
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in probes)
    return model.SerializeToString()
