"""A session on ONNX Runtime's CUDA provider, with inputs and outputs bound to the device. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime as ort

from morvit_deploy.agent.core.running import Arrays
from morvit_deploy.errors import BundleError, TargetError
from morvit_deploy.exporters.trt.engine import Cuda

PROVIDER = "CUDAExecutionProvider"
INSTALL = "python -m pip uninstall onnxruntime; python -m pip install onnxruntime-gpu"
_WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"


class CudaSession:
    """One graph on a stream of its own. TargetError when the provider is missing or does not run the session."""

    def __init__(self, graph: Path, folder: Path, cuda: Cuda, *, captured: bool = False) -> None:
        self.captured = captured
        if PROVIDER not in ort.get_available_providers():
            raise TargetError(
                f"ONNX Runtime {ort.__version__} has no CUDA provider here, only "
                f"{', '.join(ort.get_available_providers())}; run `{INSTALL}`"
            )
        self.cuda, self.stream = cuda, cuda.new_stream()
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.add_session_config_entry(_WEIGHTS_FOLDER, str(folder))
        settings = {"user_compute_stream": str(self.stream), "enable_cuda_graph": "1" if captured else "0"}
        try:
            self.session = ort.InferenceSession(str(graph), options, providers=[(PROVIDER, settings)])
        except Exception as error:  # onnxruntime and protobuf raise types of their own
            raise BundleError(f"ONNX Runtime {ort.__version__} cannot load {graph}: {error}") from error
        if self.session.get_providers()[0] != PROVIDER:
            raise TargetError(
                f"ONNX Runtime fell back to {self.session.get_providers()[0]} for {graph}: CUDA or cuDNN is missing "
                "or of another version; nothing was measured"
            )
        self.runtime = f"ONNX Runtime {ort.__version__}, CUDA provider"
        self._names = [output.name for output in self.session.get_outputs()]
        self._binding: Any = None
        self._inputs: dict[str, Any] = {}

    def enqueue(self) -> None:
        """One run over what is bound."""
        self.session.run_with_iobinding(self._binding)

    def run(self, feeds: Arrays) -> Arrays:
        """Copy inputs into the bound memory, which a captured graph reads; run; copy the outputs out."""
        if self._binding is None:
            self._bind(feeds)
        for name, array in feeds.items():
            self._inputs[name].update_inplace(array)
        self.enqueue()
        self.cuda.synchronise(self.stream)
        return dict(zip(self._names, self._binding.copy_outputs_to_cpu(), strict=True))

    def close(self) -> None:
        """Free the session's memory."""
        del self.session, self._binding, self._inputs
        self.cuda.close(self.stream)

    def _bind(self, feeds: Arrays) -> None:
        self._inputs = {
            name: ort.OrtValue.ortvalue_from_numpy(array, "cuda", 0) for name, array in feeds.items()
        }
        self._binding = self.session.io_binding()
        for name, value in self._inputs.items():
            self._binding.bind_ortvalue_input(name, value)
        for name in self._names:
            self._binding.bind_output(name, "cuda", 0)
