"""Content keys of the tensors of static modules."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from morvit_deploy.exporters.onnx import proof_weights
from morvit_deploy.exporters.onnx.proof_precision import content_key
from morvit_deploy.exporters.onnx.proof_weights import Keys


def test_a_tensor_that_buckets_share_is_hashed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[NDArray[np.float32]] = []

    def recorded(array: NDArray[np.float32]) -> str:
        hashed.append(array)
        return content_key(array)

    monkeypatch.setattr(proof_weights, "content_key", recorded)
    keys, tensor = Keys(), torch.arange(6.0).reshape(2, 3)
    assert keys.of(tensor) == keys.of(tensor.detach()) == content_key(tensor.numpy())
    assert len(hashed) == 1


def test_other_views_of_the_same_memory_have_keys_of_their_own() -> None:
    keys, tensor = Keys(), torch.arange(6.0).reshape(2, 3)
    views = (tensor, tensor.T, tensor[:1], tensor.reshape(6))
    assert [keys.of(view) for view in views] == [content_key(view.numpy()) for view in views]
    assert len({keys.of(view) for view in views}) == len(views)
