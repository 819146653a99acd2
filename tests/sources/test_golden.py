"""Golden parity: a family's own code, with random weights, against the checkpoint that was converted from its file.

The ViTs of timm, Transformers and torchvision are those packages' own models. The others are `source_models.py`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import source_models
import torch
from commands import run
from reduced_models import DynamicViT, EViT
from safetensors.torch import save_file
from third_party import third_party
from tiny_models import normalised
from torch import Tensor, nn

from morvit_deploy.bundle.pixels import synthetic_images
from morvit_deploy.exporters.targets import open_bundle
from morvit_deploy.model.checkpoint import load_checkpoint

EAGER = 1e-5  # × max(1, max |logit|): both sides float32, only the order of sums differs
EXPORTED = 1e-4  # × the same: ONNX Runtime's kernels, after the rewrites
IMAGES, SIZE = 4, 32

SQUARE = ("--image-size", str(SIZE))
TORCHVISION = (*SQUARE, "--norm-eps", "1e-6", "--num-heads", "2", "--activation", "gelu")
TIMM = (*TORCHVISION, "--pooling", "cls")


@dataclass(frozen=True)
class Golden:
    """A source: how to build the model, save it, and what to say when converting it."""

    build: Callable[[], nn.Module]
    save: Callable[[nn.Module, Path], Path]
    say: tuple[str, ...]
    family: str
    answer: Callable[[nn.Module, Tensor], Tensor] = lambda model, images: model(images)
    expected: dict[str, Any] = field(default_factory=dict)  # fields of config.json


def bare(model: nn.Module, folder: Path) -> Path:
    torch.save(model.state_dict(), folder / "model.pth")
    return folder / "model.pth"


def tensors_only(model: nn.Module, folder: Path) -> Path:
    save_file(model.state_dict(), folder / "weights.safetensors")
    return folder / "weights.safetensors"


def by_training(model: nn.Module, folder: Path) -> Path:
    torch.save(source_models.wrapped_by_training(model), folder / "checkpoint_7.pth")
    return folder / "checkpoint_7.pth"


def by_deit(model: nn.Module, folder: Path) -> Path:
    """DeiT's main.py saves averaged weights and its arguments beside the trained ones."""
    others = {name: torch.zeros_like(tensor) for name, tensor in model.state_dict().items()}
    content = {"model": others, "model_ema": model.state_dict(), "args": argparse.Namespace(lr=1e-3)}
    torch.save(content, folder / "best_checkpoint.pth")
    return folder / "best_checkpoint.pth"


def by_deit_3(model: nn.Module, folder: Path) -> Path:
    """DeiT III's own names of LayerScale, which timm changes when it reads them."""
    names = {"ls1.gamma": "gamma_1", "ls2.gamma": "gamma_2"}
    state = model.state_dict()
    for theirs, own in names.items():
        state = {name.replace(theirs, own): tensor for name, tensor in state.items()}
    assert "blocks.0.gamma_2" in state and not any(".ls" in name for name in state)
    torch.save({"model": state}, folder / "deit_3_small_224_1k.pth")
    return folder / "deit_3_small_224_1k.pth"


def torchvision_vit(**options: Any) -> nn.Module:
    models = third_party("torchvision").models
    model = models.VisionTransformer(
        image_size=SIZE, patch_size=8, num_layers=3, num_heads=2, hidden_dim=16, mlp_dim=24, num_classes=10, **options
    )  # fmt: skip  # one line reads better than eight
    return source_models.randomise(model, seed=6)


def by_transformers(model: nn.Module, folder: Path) -> Path:
    model.save_pretrained(folder / "saved")  # type: ignore[operator]  # a PreTrainedModel
    return folder / "saved"


def in_shards(model: nn.Module, folder: Path) -> Path:
    model.save_pretrained(folder / "saved", max_shard_size="6KB")  # type: ignore[operator]  # a PreTrainedModel
    assert (folder / "saved" / "model.safetensors.index.json").is_file()
    return folder / "saved"


def edge_folder(model: nn.Module, folder: Path, **config: Any) -> Path:
    """Edge-RecViT's save_pretrained: weights and the fields of its configuration."""
    save_file(model.state_dict(), folder / "model.safetensors")
    fields = {
        "model_type": "mor_vit", "hidden_size": 16, "num_hidden_layers": 5, "num_attention_heads": 2,
        "intermediate_size": 24, "hidden_act": "gelu", "layer_norm_eps": 1e-12, "image_size": SIZE, "patch_size": 8,
        "qkv_bias": True, "use_abs_pos_emb": True, "use_rel_pos_emb": True, "router_temperature": 1.0,
        "id2label": {str(i): f"kind {i}" for i in range(10)},
    }  # fmt: skip  # a block of fields
    (folder / "config.json").write_text(json.dumps(fields | config))
    return folder


def timm_vit(name: str = "vit_tiny_patch16_224", **options: Any) -> nn.Module:
    model = third_party("timm").create_model(
        name, num_classes=10, img_size=SIZE, patch_size=8, embed_dim=16, num_heads=2, depth=3, **options
    )
    return source_models.randomise(model, seed=1)


def evit(fuse: bool) -> nn.Module:
    return EViT(timm_vit(), 0.6, (0, 1), fuse).eval()


def by_evit(model: nn.Module, folder: Path) -> Path:
    """EViT's main.py saves its arguments, the layers as text."""
    assert isinstance(model, EViT)
    held = {"base_keep_rate": model.rate, "drop_loc": str(model.layers), "fuse_token": model.fuse}
    torch.save({"model": model.state_dict(), "args": argparse.Namespace(**held)}, folder / "evit.pth")
    return folder / "evit.pth"


def dynamic_vit() -> nn.Module:
    model = DynamicViT(timm_vit(), 0.7, (1, 2))
    source_models.randomise(model.score_predictor, seed=8)
    return model.eval()


def tied_timm_vit(middle: bool) -> nn.Module:
    """Unrolled: the blocks are copies of one, or of one between the ends."""
    model: Any = timm_vit()
    model.blocks.append(third_party("timm").models.vision_transformer.Block(16, 2, qkv_bias=True).eval())
    inside = model.blocks[1:-1] if middle else model.blocks
    source_models.randomise(model.blocks[-1], seed=9)
    for block in inside:
        block.load_state_dict(inside[0].state_dict())
    model.blocks[0].norm1.eps = 1e-6
    for block in model.blocks:
        block.norm1.eps = block.norm2.eps = 1e-6
    return model


def hf_vit(kind: str = "ViT", **options: Any) -> nn.Module:
    transformers = third_party("transformers")
    config = getattr(transformers, f"{kind}Config")(
        hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=24, image_size=SIZE,
        patch_size=8, num_labels=10, **options,
    )  # fmt: skip  # two lines read better than eight
    return source_models.randomise(getattr(transformers, f"{kind}ForImageClassification")(config), seed=2)


def edge(act: str = "gelu", dora: tuple[str, ...] = ()) -> nn.Module:
    model = source_models.EdgeRecViT(act=act)
    source_models.randomise(model, seed=4, router_scale=2.0)
    for block in dora:
        model.add_dora(block, rank=4, alpha=6.0)
    return model


def vision_mor(shared: int = 1) -> nn.Module:
    return source_models.randomise(source_models.VisionMoR(shared=shared), seed=5, router_scale=0.3)


def hf_logits(model: nn.Module, images: Tensor) -> Tensor:
    return model(images).logits


PREPROCESS = ("--preprocess", "imagenet")
MOR = (
    *SQUARE,
    "--selection",
    "flat",
    "--gate",
    "hard",
    "--norm-eps",
    "1e-5",
    "--num-heads",
    "2",
    "--activation",
    "gelu",
)
GOLDEN = {
    "timm": Golden(timm_vit, bare, (*TIMM, *PREPROCESS), "timm_vit"),
    "timm-training": Golden(timm_vit, by_training, (*TIMM, *PREPROCESS), "timm_vit"),
    "timm-deit-ema": Golden(timm_vit, by_deit, (*TIMM, *PREPROCESS), "timm_vit"),
    "timm-no-qkv-bias": Golden(lambda: timm_vit(qkv_bias=False), bare, (*TIMM, *PREPROCESS), "timm_vit"),
    "timm-layer-scale": Golden(
        lambda: timm_vit("deit3_small_patch16_224"), tensors_only, (*TIMM, *PREPROCESS), "timm_vit"
    ),
    "deit-3": Golden(
        lambda: timm_vit("deit3_small_patch16_224"), by_deit_3, (*TIMM, *PREPROCESS), "timm_vit"
    ),
    "torchvision": Golden(
        torchvision_vit, bare, (*TORCHVISION, "--preprocess", "torchvision"), "torchvision_vit"
    ),
    "timm-registers": Golden(
        lambda: timm_vit("vit_small_patch14_reg4_dinov2"),
        bare,
        (*TIMM, *PREPROCESS),
        "timm_vit",
        expected={"register_tokens": 4},
    ),
    "timm-registers-with-positions": Golden(
        lambda: timm_vit(reg_tokens=2),
        bare,
        (*TIMM, *PREPROCESS),
        "timm_vit",
        expected={"register_tokens": 2},
    ),
    "evit": Golden(
        lambda: evit(fuse=False), by_evit, (*TIMM, *PREPROCESS), "evit", expected={"capacity": (10, 6)}
    ),
    "evit-fused": Golden(
        lambda: evit(fuse=True), by_evit, (*TIMM, *PREPROCESS), "evit", expected={"capacity": (10, 7)}
    ),
    "dynamic-vit": Golden(
        dynamic_vit,
        bare,
        (*TIMM, *PREPROCESS, "--keep-rate", "0.7", "--drop-layers", "1,2"),
        "dynamic_vit",
        expected={"routing": "predicted", "capacity": (11, 7)},
    ),
    "timm-cycle": Golden(
        lambda: tied_timm_vit(middle=False),
        bare,
        (*TIMM, *PREPROCESS),
        "timm_vit",
        expected={"sharing": "cycle", "cycle_depth": 1, "num_recursions": 4},
    ),
    "timm-middle-cycle": Golden(
        lambda: tied_timm_vit(middle=True),
        bare,
        (*TIMM, *PREPROCESS, "--sharing", "middle_cycle"),
        "timm_vit",
        expected={"sharing": "middle_cycle", "cycle_depth": 1, "num_recursions": 2},
    ),
    "hf-vit": Golden(hf_vit, by_transformers, PREPROCESS, "hf_vit", hf_logits, {"norm_eps": 1e-12}),
    "hf-vit-shards": Golden(hf_vit, in_shards, PREPROCESS, "hf_vit", hf_logits),
    "hf-vit-version-5-names": Golden(
        hf_vit,
        bare,
        (*PREPROCESS, *SQUARE, "--norm-eps", "1e-12", "--num-heads", "2", "--activation", "gelu"),
        "hf_vit",
        hf_logits,
    ),
    "hf-vit-tanh-no-bias": Golden(
        lambda: hf_vit(hidden_act="gelu_pytorch_tanh", qkv_bias=False),
        by_transformers,
        PREPROCESS,
        "hf_vit",
        hf_logits,
        {"activation": "gelu_tanh", "qkv_bias": False},
    ),
    "hf-deit": Golden(
        lambda: hf_vit("DeiT"), by_transformers, PREPROCESS, "hf_vit", hf_logits, {"register_tokens": 1}
    ),
    "edge": Golden(
        edge,
        edge_folder,
        ("--preprocess", "cifar10"),
        "edge_recvit",
        expected={
            "routing": "token_choice",
            "num_recursions": 3,
            "labels": tuple(f"kind {i}" for i in range(10)),
        },
    ),
    "edge-relu": Golden(
        lambda: edge("relu"),
        lambda model, folder: edge_folder(
            model, folder, hidden_act="gelu_new"
        ),  # its code takes that for ReLU
        ("--preprocess", "cifar10"),
        "edge_recvit",
        expected={"activation": "relu"},
    ),
    "edge-dora": Golden(
        lambda: edge(dora=("shared", "tail")),
        edge_folder,
        ("--preprocess", "cifar10", "--dora-alpha", "6"),
        "edge_recvit",
    ),
    "vision-mor": Golden(
        vision_mor,
        bare,
        (*MOR, *PREPROCESS),
        "vision_mor",
        expected={"routing": "expert_choice_flat", "capacity": (17, 11, 5)},
    ),
    "vision-mor-two-blocks": Golden(
        lambda: vision_mor(shared=2),
        by_training,
        (*MOR, *PREPROCESS),
        "vision_mor",
        expected={"cycle_depth": 2},
    ),
}


@pytest.mark.parametrize("golden", GOLDEN.values(), ids=GOLDEN)
def test_a_converted_checkpoint_answers_as_its_own_code_does(golden: Golden, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    model = golden.build()
    source = golden.save(model, tmp_path / "source")
    done = run("convert", source, "-o", tmp_path / "native", *golden.say)
    assert done.exit_code == 0, done.output
    converted = load_checkpoint(tmp_path / "native")
    provenance = converted.config.provenance
    assert provenance is not None and provenance["family"] == golden.family
    for name, value in golden.expected.items():
        assert getattr(converted.config, name) == value, name

    pixels = synthetic_images(IMAGES, SIZE, seed=3)
    images = normalised(converted.config, pixels).float()
    with torch.no_grad():
        expected = golden.answer(model, images)
    limit = max(1.0, expected.abs().max().item())
    assert expected.std(dim=0).max() > 1e-3, "a model that answers all images alike proves nothing"
    assert (converted(images).logits - expected).abs().max() <= EAGER * limit

    done = run("export", tmp_path / "native", "-o", tmp_path / "bundle")
    assert done.exit_code == 0, done.output
    with open_bundle(tmp_path / "bundle") as session:
        answer = session.run(pixels)["logits"]
    assert np.abs(answer - expected.numpy()).max() <= EXPORTED * limit


def full_timm() -> nn.Module:
    model = third_party("timm").create_model("vit_base_patch16_224").eval()
    nn.init.normal_(model.head.weight, std=0.05)  # timm begins with zeros
    return model


def full_hf(kind: str) -> nn.Module:
    transformers = third_party("transformers")
    config = getattr(transformers, f"{kind}Config")(num_labels=1000)
    return getattr(transformers, f"{kind}ForImageClassification")(config).eval()


def full_edge() -> nn.Module:
    model = source_models.EdgeRecViT(image=224, patch=16, dim=768, heads=12, mlp=3072, layers=12)
    source_models.randomise(model, seed=1)
    for block in ("shared", "tail"):
        model.add_dora(block, rank=64, alpha=64.0)
    return model


NO_CONFIG = ("--num-heads", "12", "--activation", "gelu", "--image-size", "224")
FULL_SIZE = {
    "timm": Golden(
        full_timm, bare, (*NO_CONFIG, "--pooling", "cls", "--norm-eps", "1e-6", *PREPROCESS), "timm_vit"
    ),
    "hf-vit": Golden(lambda: full_hf("ViT"), by_transformers, PREPROCESS, "hf_vit", hf_logits),
    "hf-deit": Golden(lambda: full_hf("DeiT"), by_transformers, PREPROCESS, "hf_vit", hf_logits),
    "edge-dora": Golden(
        full_edge,
        bare,
        (*NO_CONFIG, "--norm-eps", "1e-12", *PREPROCESS, "--dora-alpha", "64"),
        "edge_recvit",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("golden", FULL_SIZE.values(), ids=FULL_SIZE)
def test_full_size(golden: Golden, tmp_path: Path) -> None:
    """The size of ViT-B/16: `pytest tests/test_golden.py -k full_size -s` prints the differences."""
    torch.manual_seed(0)
    (tmp_path / "source").mkdir()
    model = golden.build()
    done = run("convert", golden.save(model, tmp_path / "source"), "-o", tmp_path / "native", *golden.say)
    assert done.exit_code == 0, done.output
    images = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        expected = golden.answer(model, images)
    apart = (load_checkpoint(tmp_path / "native")(images).logits - expected).abs().max().item()
    largest = expected.abs().max().item()
    print(f"{golden.family}: max |Δlogit| {apart:.2g}, max |logit| {largest:.3g}")
    assert expected.std(dim=0).max() > 1e-3
    assert apart <= EAGER * max(1.0, largest)
