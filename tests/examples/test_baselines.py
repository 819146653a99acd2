"""The speed models: parameters and MACs within 3 % of the published ones, and the same logits in the runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from places import EXAMPLES, ROOT
from torch.utils.flop_counter import FlopCounterMode

from morvit_deploy.measuring.compare.baselines.exporting import exported
from morvit_deploy.measuring.compare.baselines.graph_facts import graph_facts
from morvit_deploy.measuring.compare.baselines.names import OWN, Baseline
from morvit_deploy.measuring.compare.baselines.zoo import speed_model_code

WITHIN = 0.03  # of the published figures, which have two or three digits
TABLE = (ROOT / "docs" / "how-to" / "compare-models.md").read_text(encoding="utf-8")


def code_of(name: str) -> Any:
    return speed_model_code(EXAMPLES / "baselines" / f"{name}.py")


def module_of(code: Any) -> torch.nn.Module:
    """At the image size of the published figures."""
    sized = code.PUBLISHED.image_size != code.IMAGE_SIZE
    module: torch.nn.Module = code.build(code.PUBLISHED.image_size) if sized else code.build()
    return module.eval().requires_grad_(False)  # the counter follows gradients otherwise


@pytest.mark.parametrize("name", OWN)
def test_parameters_and_macs_are_the_published_ones(name: str) -> None:
    code = code_of(name)
    published, module = code.PUBLISHED, module_of(code)
    parameters = sum(one.numel() for one in module.parameters())
    assert parameters == pytest.approx(published.parameters, rel=WITHIN)
    size = published.image_size
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        logits = module(torch.zeros(1, 3, size, size))
    assert logits.shape == (1, 1000)
    macs = counter.get_total_flops() / 2 + published.counted_besides
    assert macs == pytest.approx(published.macs, rel=WITHIN)
    assert published.source and f"| `{name}` | {parameters / 1e6:.3g} M | {macs / 1e9:.3g} G" in TABLE


@pytest.mark.parametrize("name", OWN)
def test_images_of_a_batch_do_not_meet(name: str) -> None:
    module = code_of(name).build().eval()
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, 224, 224, generator=generator)
    with torch.no_grad():
        both, alone = module(images), module(images[1:])
    assert not torch.allclose(both[0], both[1], atol=1e-3)
    assert torch.allclose(both[1:], alone, atol=1e-4)


def test_ats_samples_more_of_what_scores_more() -> None:
    code = code_of("ats")
    block = code.SamplingBlock(code.DIM, code.HEADS, 8)
    scores = torch.full((1, 100), 0.001)
    scores[0, 42] = 1.0
    kept = block._sampled(scores)
    assert kept.shape == (1, 8)
    assert (kept == 42).sum() == 4, "levels 4/7 to 1 are nearest to 1, which it reaches; the others to 0.09"


def test_tct_merges_around_density_peaks() -> None:
    code = code_of("tct")
    groups = torch.tensor([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0], [9.0, 9.0]])
    points = (groups.repeat_interleave(6, 0) + 0.01 * torch.randn(24, 2, generator=torch.Generator()))[None]
    cluster = code.clusters(points, 4)
    assert sorted(len({*part}) for part in cluster.view(4, 6).tolist()) == [1, 1, 1, 1]
    assert len({*cluster[0].tolist()}) == 4
    means = code.merged(points, cluster, torch.ones(1, 24, 1), 4)
    assert torch.allclose(means[0].sort(dim=0).values, groups.sort(dim=0).values, atol=0.05)


def test_tokens_go_to_the_grid_and_back() -> None:
    code = code_of("tct")
    cells = (code.IMAGE_SIZE // 4) ** 2
    tokens = code.Tokens(torch.randn(1, cells, 3), torch.arange(cells)[None], code.IMAGE_SIZE // 4)
    assert torch.allclose(tokens.from_grid(tokens.to_grid(tokens.x)), tokens.x, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", OWN)
def test_the_runtime_returns_the_modules_logits(name: str, tmp_path: Path) -> None:
    """`exported` compares them; the graph has the module's products."""
    path = EXAMPLES / "baselines" / f"{name}.py"
    found = exported(Baseline(name, "speed", path=path), 0, tmp_path)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        code_of(name).build().eval().requires_grad_(False)(torch.zeros(1, 3, found.size, found.size))
    assert graph_facts(found.graph).macs == pytest.approx(counter.get_total_flops() / 2, rel=1e-3)
