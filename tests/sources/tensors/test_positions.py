"""Position embeddings for another image size, held against timm's own resampling."""

from __future__ import annotations

import pytest
import torch
from third_party import third_party
from torch import Tensor

from morvit_deploy.errors import CheckpointError, ConfigError
from morvit_deploy.sources.tensors.positions import grid_of, split_positions

DIM = 6


def rows(count: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(1, count, DIM, generator=torch.Generator().manual_seed(count)).to(dtype)


@pytest.mark.parametrize("size", [(1, 1), (3, 3), (4, 9), (6, 6), (8, 2), (14, 14)])
@pytest.mark.parametrize("prefix", [0, 1, 2, 5])
def test_the_grid_is_resampled_as_timm_does(prefix: int, size: tuple[int, int]) -> None:
    embed = rows(prefix + 36)
    resample = third_party("timm").layers.resample_abs_pos_embed
    wanted = resample(embed, new_size=list(size), num_prefix_tokens=prefix)
    found = split_positions(embed, prefix, (6, 6), prefix).resized(size)
    assert torch.equal(found.grid.flatten(0, 1), wanted[0, prefix:]), "the same call: the same bits"
    assert torch.equal(found.prefix, wanted[0, :prefix])
    assert found.size == size and found.joined(min(prefix, 1)).shape == (
        1,
        min(prefix, 1) + size[0] * size[1],
        DIM,
    )


def test_an_oblong_grid_is_resampled_as_timm_does() -> None:
    embed, resample = rows(1 + 24), third_party("timm").layers.resample_abs_pos_embed
    wanted = resample(embed, new_size=[5, 7], old_size=[4, 6], num_prefix_tokens=1)
    assert torch.equal(split_positions(embed, 1, (4, 6), 1).resized((5, 7)).joined(), wanted)


def test_the_same_size_is_left_alone() -> None:
    positions = split_positions(rows(17), 1, (4, 4), 1)
    assert positions.resized((4, 4)) is positions
    assert torch.equal(positions.joined(), rows(17))


def test_joining_leaves_registers_out() -> None:
    embed = rows(3 + 16)
    joined = split_positions(embed, 3, (4, 4), 3).joined()
    assert torch.equal(joined[0, 0], embed[0, 0]) and torch.equal(joined[0, 1:], embed[0, 3:])
    assert torch.equal(split_positions(embed, 3, (4, 4), 3).joined(0)[0], embed[0, 3:])


@pytest.mark.parametrize("prefix", [1, 5])
def test_rows_of_patches_alone(prefix: int) -> None:
    """timm's no_embed_class: CLS and registers have no position."""
    positions = split_positions(rows(16), prefix, (4, 4), 0)
    assert positions.size == (4, 4) and torch.equal(positions.grid.flatten(0, 1), rows(16)[0])
    assert positions.prefix.shape == (prefix, DIM) and not positions.prefix.any()


def test_registers_without_positions_beside_a_cls_that_has_one() -> None:
    """DINOv2."""
    positions = split_positions(rows(17), 4, (4, 4), 1)
    assert torch.equal(positions.prefix[0], rows(17)[0, 0]) and not positions.prefix[1:].any()


def test_half_precision_is_resampled_in_float32() -> None:
    found = split_positions(rows(17, torch.float16), 1, (4, 4), 1).resized((6, 6))
    assert found.grid.dtype == torch.float32 and found.joined().dtype == torch.float32


@pytest.mark.parametrize(
    ("shape", "match"),
    [
        ((1, 99, DIM), "got 99 rows, expected 1 before the patches and 4×4 patches"),
        ((17, DIM), r"got shape \[17, 6\], expected \[1, tokens, dim\]"),
        ((2, 17, DIM), r"expected \[1, tokens, dim\]"),
    ],
)
def test_rows_that_do_not_fit(shape: tuple[int, ...], match: str) -> None:
    with pytest.raises(CheckpointError, match=match):
        split_positions(torch.zeros(shape), 1, (4, 4), 1)


def test_images_that_patches_do_not_fill() -> None:
    assert grid_of((224, 96), 16) == (14, 6)
    with pytest.raises(ConfigError, match="--image-size: got 230, expected a multiple of the patch size 16"):
        grid_of((230, 230), 16)
    with pytest.raises(ConfigError, match="got 32x40, expected a multiple"):
        grid_of((32, 40), 16)


def test_patches_that_overlap_need_not_end_at_the_edge() -> None:
    """TransReID's 256 × 128 with a stride of 12."""
    assert grid_of((256, 128), 16, 12) == (21, 10)
    with pytest.raises(ConfigError, match="got 12x64, expected at least the patch size 16"):
        grid_of((12, 64), 16, 12)


@pytest.mark.parametrize("size", [16 * 257, 16 * 10**9, 16 * 10**30])
def test_images_of_more_patches_than_a_model_may_have(size: int) -> None:
    assert grid_of((16 * 256, 16 * 256), 16) == (256, 256)
    with pytest.raises(ConfigError, match=f"--image-size: got {size}, which is .* at most 65,536 patches"):
        grid_of((size, size), 16)
