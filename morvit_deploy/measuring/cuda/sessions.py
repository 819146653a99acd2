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


class NotCaptured(TargetError):
    """ONNX Runtime cannot run a graph as a CUDA graph; it may run without."""


class CudaSession:
    """One graph on a stream of its own. TargetError when the provider is missing or does not run the session.

    Products of fp32 are computed in fp32, or with `tf32` in TF32, which the provider itself would choose.
    """

    uncaptured: str | None = None

    def __init__(
        self, graph: Path, folder: Path, cuda: Cuda, *, captured: bool = False, tf32: bool = False
    ) -> None:
        self.graph, self.captured = graph, captured
        if PROVIDER not in ort.get_available_providers():
            raise TargetError(
                f"ONNX Runtime {ort.__version__} has no CUDA provider here, only "
                f"{', '.join(ort.get_available_providers())}; run `{INSTALL}`"
            )
        self.cuda, self.stream = cuda, cuda.new_stream()
        try:
            self.session = self._session(folder, tf32)
        except BaseException:  # an interrupt, too
            cuda.close(self.stream)
            raise
        self.runtime = f"ONNX Runtime {ort.__version__}, CUDA provider, TF32 {'on' if tf32 else 'off'}"
        self._names = [output.name for output in self.session.get_outputs()]
        self._binding: Any = None
        self._inputs: dict[str, Any] = {}

    def _session(self, folder: Path, tf32: bool) -> Any:
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.add_session_config_entry(_WEIGHTS_FOLDER, str(folder))
        settings = {
            "user_compute_stream": str(self.stream),
            "enable_cuda_graph": "1" if self.captured else "0",
            "use_tf32": "1" if tf32 else "0",
        }
        try:
            session = ort.InferenceSession(str(self.graph), options, providers=[(PROVIDER, settings)])
        except Exception as error:  # onnxruntime and protobuf raise types of their own
            kind = NotCaptured if self.captured else BundleError
            raise kind(f"ONNX Runtime {ort.__version__} cannot load {self.graph}: {error}") from error
        if session.get_providers()[0] != PROVIDER:
            raise TargetError(
                f"ONNX Runtime fell back to {session.get_providers()[0]} for {self.graph}: CUDA or cuDNN is missing "
                "or of another version; nothing was measured"
            )
        return session

    def enqueue(self) -> None:
        """One run over what is bound."""
        try:
            self.session.run_with_iobinding(self._binding)
        except Exception as error:  # onnxruntime raises types of its own
            kind = NotCaptured if self.captured else TargetError
            raise kind(f"ONNX Runtime {ort.__version__} cannot run {self.graph}: {error}") from error

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
