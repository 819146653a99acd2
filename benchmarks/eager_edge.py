"""Edge-RecViT's arithmetic as its training code runs it: every token through every layer, and a gate on the update.

h ← h + gate · (block(h) − h), where a token's gate at layer s is 1 if its depth is at least s. An ordinary module of
separate query, key and value projections and PyTorch's own attention: what a user would hand to `torch.onnx.export`.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from morvit_deploy.bundle.manifest import MANIFEST, Manifest, describe_files
from morvit_deploy.bundle.pixels import Pixels, normalise
from morvit_deploy.errors import ParityError
from morvit_deploy.exporters.onnx.graphs.macs import count_macs
from morvit_deploy.exporters.onnx.graphs.names import GRAPH, WEIGHTS
from morvit_deploy.exporters.targets import open_bundle
from morvit_deploy.files import write_text
from morvit_deploy.model import reference
from morvit_deploy.model.layers import Block
from morvit_deploy.verifying.gaps import LOGIT_TOLERANCE

OPSET = 20  # as our own exports


class EagerBlock(nn.Module):
    """A pre-norm block with the weights of a reference block."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.num_heads = block.attn.num_heads
        self.norm1, self.norm2 = block.norm1, block.norm2
        weights = block.attn.qkv.weight.chunk(3)
        biases = (None,) * 3 if block.attn.qkv.bias is None else block.attn.qkv.bias.chunk(3)
        self.query, self.key, self.value = (_linear(w, b) for w, b in zip(weights, biases, strict=True))
        self.proj, self.mlp = block.attn.proj, block.mlp

    def forward(self, h: Tensor) -> Tensor:
        """h (batch, tokens, dim) to new states."""
        normed = self.norm1(h)
        q, k, v = (self._heads(part(normed)) for part in (self.query, self.key, self.value))
        attended = F.scaled_dot_product_attention(q, k, v)  # (batch, heads, tokens, head_dim)
        h = h + self.proj(attended.transpose(1, 2).flatten(2))
        new: Tensor = h + self.mlp(self.norm2(h))
        return new

    def _heads(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:2], self.num_heads, -1).transpose(1, 2)


class EagerEdgeRecViT(nn.Module):
    """Pixels uint8 (batch, height, width, 3) to logits (batch, classes), the reference's own for token_choice."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: reference.MoRViT) -> None:
        super().__init__()
        self.model = model
        self.blocks = nn.ModuleDict(
            {name.replace(".", "_"): EagerBlock(block) for name, block in dict(model.layers()).items()}
        )
        self.order = [name.replace(".", "_") for name, _ in model.layers()]
        preprocess, dtype = model.config.preprocess, model.cls_token.dtype
        self.register_buffer("mean", torch.tensor(preprocess.mean, dtype=dtype))
        self.register_buffer("std", torch.tensor(preprocess.std, dtype=dtype))

    def forward(self, image: Tensor) -> Tensor:
        """Every layer for every token."""
        normal = (image.to(self.mean.dtype) / 255 - self.mean) / self.std
        h = self.model.embed(normal.permute(0, 3, 1, 2))
        depth = self.model.router(0)(h).argmax(dim=-1) + 1  # (batch, tokens)
        depth = torch.cat([torch.full_like(depth[:, :1], len(self.order)), depth[:, 1:]], dim=1)  # CLS: all
        for layer, name in enumerate(self.order, start=1):
            gate = (depth >= layer).to(h.dtype)[..., None]
            h = h + gate * (self.blocks[name](h) - h)
        return self.model.classify(h[:, 0])


def export_eager(model: reference.MoRViT) -> onnx.ModelProto:
    """PyTorch's own ONNX export of the eager model for one image, with its defaults."""
    image = torch.zeros(1, *model.config.image_shape, 3, dtype=torch.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        program = torch.onnx.export(
            EagerEdgeRecViT(model).eval(),
            (image,),
            input_names=["image"],
            output_names=["logits"],
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    return program.model_proto


def write_eager(model: reference.MoRViT, folder: Path, like: Manifest, images: Pixels) -> None:
    """The eager export where `bench` can open it: a folder with the manifest of `like`, the masked bundle.

    The graph is as PyTorch wrote it. ParityError when ONNX Runtime's logits for `images` uint8 (n, height, width, 3)
    are not the reference's.
    """
    graph = export_eager(model)
    (bucket,) = like.macs
    folder.mkdir()
    onnx.save_model(graph, folder / GRAPH, save_as_external_data=True, location=WEIGHTS)
    files = describe_files(folder, [GRAPH, WEIGHTS])
    update = {
        "files": files,
        "macs": {bucket: count_macs(graph)},
        "probes": (),
        "structure": {},
        "parity": None,
    }
    write_text(folder / MANIFEST, like.model_copy(update=update).to_json())
    expected = model(torch.from_numpy(normalise(images, model.config.preprocess))).logits.numpy()
    with open_bundle(folder) as session:
        apart = float(np.abs(session.logits(images) - expected).max())
    allowed = LOGIT_TOLERANCE * max(1.0, float(np.abs(expected).max()))
    if apart > allowed:
        raise ParityError(
            f"the eager export is {apart:.2e} from the reference, at most {allowed:.2e} expected"
        )


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, dtype=weight.dtype)
    linear.weight = nn.Parameter(weight.clone(), requires_grad=False)
    if bias is not None:
        linear.bias = nn.Parameter(bias.clone(), requires_grad=False)
    return linear
