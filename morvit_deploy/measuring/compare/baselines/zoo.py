"""Other architectures as torch modules: timm's, and the speed models of examples/baselines."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from morvit_deploy.errors import CheckpointError, TargetError
from morvit_deploy.measuring.compare.baselines.names import Baseline
from morvit_deploy.measuring.compare.baselines.timm_beside import import_timm

CLASSES = 1000  # some models of timm have more by default, of the data that they were pretrained on


@dataclass(frozen=True)
class Built:
    """A module from normalised images (batch, 3, size, size) to logits, and how its pixels are normalised."""

    module: nn.Module
    size: int  # pixels
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def parameters(self) -> int:
        """Of the module as it is deployed, each once."""
        return sum(parameter.numel() for parameter in self.module.parameters())


def timm_names() -> Sequence[str]:
    """Every model that timm can build; MissingExtraError without it."""
    names: list[str] = import_timm().list_models()
    return names


def build(baseline: Baseline, seed: int) -> Built:
    """The module with random weights of this seed, or with those of its file.

    Branches that training merges into one convolution are merged, as for deployment. Raises CheckpointError for a
    file that does not hold the model's weights.
    """
    torch.manual_seed(seed)
    return _speed_model(baseline) if baseline.kind == "speed" else _of_timm(baseline)


def _of_timm(baseline: Baseline) -> Built:
    timm = import_timm()
    try:
        module: nn.Module = timm.create_model(baseline.name, pretrained=False, num_classes=CLASSES)
    except Exception as error:  # each model's own
        raise TargetError(
            f"timm {timm.__version__} cannot build {baseline.name} with {CLASSES} classes: {error}"
        ) from error
    if baseline.weights is not None:
        _load(module, baseline)
    about: Any = module.pretrained_cfg
    module = timm.utils.reparameterize_model(module.eval())
    return Built(module, about["input_size"][-1], tuple(about["mean"]), tuple(about["std"]))


def _load(module: nn.Module, baseline: Baseline) -> None:
    assert baseline.weights is not None
    tensors = _read(baseline.weights)
    wanted = module.state_dict()
    wrong = [name for name in wanted if name not in tensors or tensors[name].shape != wanted[name].shape]
    if wrong or len(tensors) != len(wanted):
        further = [name for name in tensors if name not in wanted]
        raise CheckpointError(
            f"{baseline.weights} does not hold the weights of {baseline.name} with {CLASSES} classes: "
            f"{len(wrong)} tensors are missing or of another shape ({', '.join(wrong[:3])}), {len(further)} are not "
            f"the model's ({', '.join(further[:3])})"
        )
    module.load_state_dict(tensors)


def _read(path: Path) -> dict[str, Tensor]:
    """Tensors of a .safetensors file, or of PyTorch's own format, which is never unpickled beyond tensors."""
    from safetensors.torch import load_file

    try:
        found: Any = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except Exception as error:  # both libraries raise types of their own
        raise CheckpointError(f"cannot read the weights of {path}: {error}") from error
    for entry in ("state_dict", "model"):
        found = found.get(entry, found) if isinstance(found, dict) else found
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise CheckpointError(f"{path} holds no tensors by name; give a state dict")
    return found


def speed_model_code(path: Path) -> Any:
    """The module of a file of examples/baselines, which is not on the path."""
    spec = importlib.util.spec_from_file_location(f"baseline_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    code = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = code  # where dataclasses look their module up
    spec.loader.exec_module(code)
    return code


def _speed_model(baseline: Baseline) -> Built:
    assert baseline.path is not None
    code = speed_model_code(baseline.path)
    return Built(code.build().eval(), code.IMAGE_SIZE, tuple(code.MEAN), tuple(code.STD))
