"""Heads whose classes do not exclude each other, from the checkpoint to `predict`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import answer, run
from foreign_checkpoints import DIM, HEADS, MLP, SIZE, vit
from safetensors.torch import save_file
from tiny_models import make_config
from torch import Tensor

import morvit_deploy as md
from morvit_deploy.bundle.manifest import Manifest
from morvit_deploy.bundle.session import head_warnings
from morvit_deploy.exporters.verification import verify

EXACT = 1e-6  # float32 logits on both sides
PLAIN = {"routing": "none", "sharing": "cycle", "num_recursions": 1}
LOGITS = [0.2130, 1.0468, -0.1368]  # cat, dog, owl


def by_transformers(folder: Path) -> Path:
    """A multi-label ViT as Transformers saves it, whose head returns LOGITS for every image."""
    tensors: dict[str, Tensor] = {}
    names = {
        "norm1": "layernorm_before", "norm2": "layernorm_after", "attn.proj": "attention.output.dense",
        "mlp.fc1": "intermediate.dense", "mlp.fc2": "output.dense",
    }  # fmt: skip
    for name, tensor in vit("ab").items():
        _, number, rest = name.split(".", 2) if name.startswith("blocks.") else ("", "", name)
        layer, _, kind = rest.rpartition(".")
        at = f"vit.encoder.layer.{number}"
        if layer == "attn.qkv":
            for part, rows in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                tensors[f"{at}.attention.attention.{part}.{kind}"] = rows.clone()
        elif layer in names:
            tensors[f"{at}.{names[layer]}.{kind}"] = tensor
    ends = vit("")
    for kind in ("weight", "bias"):
        tensors[f"vit.embeddings.patch_embeddings.projection.{kind}"] = ends[f"patch_embed.proj.{kind}"]
        tensors[f"vit.layernorm.{kind}"] = ends[f"norm.{kind}"]
    tensors["vit.embeddings.cls_token"] = ends["cls_token"]
    tensors["vit.embeddings.position_embeddings"] = ends["pos_embed"]
    tensors["classifier.weight"], tensors["classifier.bias"] = torch.zeros(3, DIM), torch.tensor(LOGITS)
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    config = {
        "model_type": "vit", "hidden_size": DIM, "num_hidden_layers": 2, "num_attention_heads": HEADS,
        "intermediate_size": MLP, "hidden_act": "gelu", "layer_norm_eps": 1e-12, "image_size": SIZE, "patch_size": 4,
        "problem_type": "multi_label_classification", "id2label": {"0": "cat", "1": "dog", "2": "owl"},
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_the_dog_of_a_multi_label_checkpoint(tmp_path: Path, image_files: list[Path]) -> None:
    source = by_transformers(tmp_path / "multilabel")
    done = run("export", source, "--preprocess", "imagenet", "-o", tmp_path / "bundle")
    assert done.exit_code == 0, done.output
    (row,) = answer("predict", tmp_path / "bundle", image_files[0])["predictions"]
    assert [guess["label"] for guess in row["top"]] == ["dog", "cat", "owl"]
    assert [guess["label"] for guess in row["present"]] == ["dog", "cat"]
    assert row["top"][0]["probability"] == pytest.approx(0.740, abs=5e-4), "softmax would say 0.59"
    shown = run("predict", tmp_path / "bundle", image_files[0]).stdout
    text = " ".join(shown.split())
    assert "above 50 %" in text and "dog 74.0" in text and "they do not sum to 100 %" in text


@pytest.fixture(scope="module")
def bundle(exported: Callable[..., Path]) -> Path:
    return exported(make_config(**PLAIN, head_activation="sigmoid"))


def test_every_class_has_its_own_probability(bundle: Path, image_files: list[Path]) -> None:
    found = md.predict(bundle, image_files, top=3)
    for one in found:
        each = 1 / (1 + np.exp(-one.logits.astype(np.float64)))
        assert [guess.probability for guess in one.top] == pytest.approx(np.sort(each)[::-1][:3], abs=EXACT)
        assert {guess.index for guess in one.present} == set(np.flatnonzero(one.logits > 0))
        assert one.as_dict()["present"] == [
            {"index": guess.index, "label": guess.label, "probability": guess.probability}
            for guess in one.present
        ]
    assert any(len(one.present) > 1 for one in found), "more than softmax could say"
    assert f"Prediction({str(image_files[0])!r}" in repr(found[0])
    assert "do not sum" in found.report().markdown()


def test_no_class_may_be_present(bundle: Path, image_files: list[Path]) -> None:
    (one,) = md.predict(bundle, image_files[:1])
    none = type(one)(one.image, one.bucket, one.top, np.full(10, -1, np.float32), None, one.manifest)
    assert none.present == () and none.named == "no class" and "no class" in repr(none)
    assert "| none |" in none.report().markdown()


def test_a_softmax_head_is_shown_as_before(tiny_bundle: Path, image_files: list[Path]) -> None:
    (one,) = md.predict(tiny_bundle, image_files[:1])
    assert "present" not in one.as_dict() and one.present == one.top[:1] and one.named == one.label
    assert "sum to 100" not in one.report().markdown()


def test_one_logit(exported: Callable[..., Path], image_files: list[Path]) -> None:
    bundle = exported(make_config(**PLAIN, num_classes=1, labels=None, head_activation="sigmoid"))
    found = md.predict(bundle, image_files)
    assert all(0 < one.probability < 1 for one in found)
    assert [len(one.present) for one in found] == [int(one.logits[0] > 0) for one in found]
    assert verify(bundle, bundle.parent / "checkpoint").passed


def test_a_softmax_of_one_logit_is_warned_of() -> None:
    (warning,) = head_warnings(make_config(**PLAIN, num_classes=1, labels=None))
    assert "100 % for every image" in warning and '"head_activation": "sigmoid"' in warning
    assert head_warnings(make_config()) == ()
    assert head_warnings(make_config(**PLAIN, num_classes=1, labels=None, head_activation="sigmoid")) == ()


def test_a_bundle_of_an_older_version_is_a_softmax(tiny_bundle: Path) -> None:
    fields = json.loads((tiny_bundle / "manifest.json").read_text())
    assert fields["config"].pop("head_activation") == "softmax"
    assert Manifest.model_validate_json(json.dumps(fields)).config.head_activation == "softmax"
