"""Position embeddings for another image size, held against timm's own resampling."""

from __future__ import annotations

import pytest
import torch
from third_party import third_party
from torch import Tensor

from morvit_deploy.errors import CheckpointError, ConfigError
from morvit_deploy.sources.tensors.positions import side_of, split_positions

DIM = 6


def rows(count: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(1, count, DIM, generator=torch.Generator().manual_seed(count)).to(dtype)


@pytest.mark.parametrize("side", [1, 3, 4, 6, 8, 14])
@pytest.mark.parametrize("prefix", [1, 2, 5])
def test_the_grid_is_resampled_as_timm_does(prefix: int, side: int) -> None:
    embed = rows(prefix + 36)
    resample = third_party("timm").layers.resample_abs_pos_embed
    wanted = resample(embed, new_size=[side, side], num_prefix_tokens=prefix)
    found = split_positions(embed, prefix).resized(side)
    assert torch.equal(found.grid.flatten(0, 1), wanted[0, prefix:]), "the same call: the same bits"
    assert torch.equal(found.prefix, wanted[0, :prefix])
    assert found.side == side and found.joined().shape == (1, 1 + side * side, DIM)


def test_the_same_size_is_left_alone() -> None:
    positions = split_positions(rows(17), 1)
    assert positions.resized(4) is positions
    assert torch.equal(positions.joined(), rows(17))


def test_joining_leaves_registers_out() -> None:
    embed = rows(3 + 16)
    joined = split_positions(embed, 3).joined()
    assert torch.equal(joined[0, 0], embed[0, 0]) and torch.equal(joined[0, 1:], embed[0, 3:])


@pytest.mark.parametrize("prefix", [1, 5])
def test_rows_of_patches_alone(prefix: int) -> None:
    """timm's no_embed_class: CLS and registers have no position."""
    positions = split_positions(rows(16), prefix)
    assert positions.side == 4 and torch.equal(positions.grid.flatten(0, 1), rows(16)[0])
    assert positions.prefix.shape == (prefix, DIM) and not positions.prefix.any()


def test_half_precision_is_resampled_in_float32() -> None:
    found = split_positions(rows(17, torch.float16), 1).resized(6)
    assert found.grid.dtype == torch.float32 and found.joined().dtype == torch.float32


@pytest.mark.parametrize(
    ("shape", "prefix", "match"),
    [
        ((1, 99, DIM), 1, r"got 99 rows with 1 token\(s\) before the patches, no square grid"),
        ((1, 9, DIM), 5, "two possible grids"),
        ((17, DIM), 1, r"got shape \[17, 6\], expected \[1, tokens, dim\]"),
        ((2, 17, DIM), 1, r"expected \[1, tokens, dim\]"),
    ],
)
def test_rows_that_are_no_square(shape: tuple[int, ...], prefix: int, match: str) -> None:
    with pytest.raises(CheckpointError, match=match):
        split_positions(torch.zeros(shape), prefix)


def test_images_that_patches_do_not_fill() -> None:
    assert side_of(224, 16) == 14
    with pytest.raises(ConfigError, match="--image-size: got 230, expected a multiple of the patch size 16"):
        side_of(230, 16)


@pytest.mark.parametrize("size", [16 * 257, 16 * 10**9, 16 * 10**30])
def test_images_of_more_patches_than_a_model_may_have(size: int) -> None:
    assert side_of(16 * 256, 16) == 256
    with pytest.raises(ConfigError, match=f"--image-size: got {size}, which is .* at most 65,536 patches"):
        side_of(size, 16)
