"""DoRA is merged as it was trained, and what is half merged is found out."""

from __future__ import annotations

import pytest
import torch
from source_models import DoRA
from torch import Tensor

from morvit_deploy.errors import CheckpointError
from morvit_deploy.sources.tensors.dora import SLOTS, merged, merging

ALPHA, RANK, DIM = 6.0, 4, 10
ROUNDED = 1e-6  # merged in float64, kept in float32


def layer(seed: int = 0) -> DoRA:
    generator = torch.Generator().manual_seed(seed)
    dora = DoRA(DIM, RANK, ALPHA, generator)
    dora.base_layer.weight.data = torch.randn(DIM, DIM, generator=generator)
    dora.requires_grad_(False).settle()
    return dora


def parts(dora: DoRA) -> dict[str, Tensor]:
    held = (dora.base_layer.weight, dora.dora_A, dora.dora_B, dora.rho, dora.W_hat_init)
    return {slot: tensor.detach().clone() for slot, tensor in zip(SLOTS, held, strict=True)}


def test_the_merged_weight_is_the_trained_one() -> None:
    dora = layer()
    found = merged(parts(dora), ALPHA)
    assert found.dtype == torch.float32
    assert (found - dora.weight()).abs().max() <= ROUNDED * dora.weight().abs().max()


def test_alpha_matters_and_is_not_guessed() -> None:
    held = parts(layer())
    assert (merged(held, ALPHA) - merged(held, RANK)).abs().max() > 0.01


def test_a_base_weight_that_was_merged_proves_alpha() -> None:
    dora = layer()
    held = parts(dora) | {"base": dora.weight()}
    assert (merged(held, ALPHA) - dora.weight()).abs().max() <= ROUNDED * dora.weight().abs().max()
    with pytest.raises(CheckpointError, match=r"half-merged DoRA.*--dora-alpha 4.*give the alpha"):
        merged(held, RANK)


def test_a_base_weight_of_another_layer_is_found_out() -> None:
    held = parts(layer(0)) | {"base": layer(1).base_layer.weight}
    with pytest.raises(CheckpointError, match="neither the original weight with direction W_hat_init"):
        merged(held, ALPHA)


def test_a_row_of_zeros_is_its_own_direction() -> None:
    dora = layer()
    dora.base_layer.weight[3] = 0.0
    dora.W_hat_init[3] = 0.0
    assert torch.isfinite(merged(parts(dora), ALPHA)).all()


WRONG = {
    "A of another width": {"dora_A": torch.zeros(RANK, DIM + 1)},
    "B of another rank": {"dora_B": torch.zeros(DIM, RANK + 1)},
    "one magnitude": {"rho": torch.zeros(1)},
    "magnitudes in a column": {"rho": torch.zeros(DIM, 1)},
    "direction transposed": {"W_hat_init": torch.zeros(DIM, DIM + 1)},
    "a vector": {"base": torch.zeros(DIM)},
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_parts_that_do_not_fit(change: dict[str, Tensor]) -> None:
    with pytest.raises(CheckpointError, match="half-merged DoRA: shapes do not match: base"):
        merged(parts(layer()) | change, ALPHA)


def test_without_alpha_only_the_shape_is_known() -> None:
    assert merging(None)(parts(layer())).shape == (DIM, DIM)
    assert torch.equal(merging(ALPHA)(parts(layer())), merged(parts(layer()), ALPHA))
