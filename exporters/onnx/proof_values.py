"""Each bucket's written graph computes, value by value, what its static module does in float64.

The routers' answers are constructed: capacities are filled exactly and exceeded by one, logits tie with thresholds.
So every attribute, constant and connection that changes a value or a decision is compared, in every precision.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx
import torch

from morvit_deploy.bundle.manifest import Manifest
from morvit_deploy.exporters.base import example_image
from morvit_deploy.exporters.onnx.evaluation import EVALUATION_ERRORS, Evaluation
from morvit_deploy.exporters.onnx.proof_precision import Promise
from morvit_deploy.graph.style.blocks import StaticLinear
from morvit_deploy.graph.unroll import StaticMoRViT
from morvit_deploy.graph.weights import weight_name
from morvit_deploy.verifying.constructed import ROUTER_LOGITS, Script
from morvit_deploy.verifying.replay import Values, first_violation, is_decision


def value_violations(
    model: onnx.ModelProto,
    exact: StaticMoRViT,
    stored: Mapping[str, str],
    promised: Mapping[str, Promise],
    manifest: Manifest,
    bucket: str,
) -> list[str]:
    """The first value that differs under the first script that shows it; `exact` is of `exact_copies`.

    `model` is the bucket's plain graph, proved to read the weights of `promised`; `stored` are its `stored_keys`.
    """
    results = [value.name for value in model.graph.output]
    inside = {name for node in model.graph.node for name in node.output}
    probes = [name for name in manifest.probes_of(bucket) if name in inside and name not in results]
    routers = [name for name in probes if name.endswith(ROUTER_LOGITS)]
    weights = _exact_weights(exact, stored, promised)
    evaluation = Evaluation(model, [*probes, *results], routers, weights)
    image = random_image(exact, 1 if exact.options.single else batch_of(manifest))
    decided = [name for name in (*probes, *results) if is_decision(name)]
    decisions = Evaluation(model, decided, routers, weights) if decided else evaluation

    def evaluate(script: Script, given: Values) -> Values:
        chosen = decisions if script.decisions_only else evaluation
        return chosen.run({"image": image.numpy(), **given})

    return first_violation(exact, image, evaluate, EVALUATION_ERRORS)


def _exact_weights(exact: StaticMoRViT, stored: Mapping[str, str], promised: Mapping[str, Promise]) -> Values:
    """The static module's weights in float64, by the initializers that stand for them; they are not copied."""
    weights = {
        weight_name(f"{name}.weight"): module.weight.detach().numpy()
        for name, module in exact.named_modules()
        if isinstance(module, StaticLinear)
    }
    return {name: weights[promised[key].name] for name, key in stored.items() if key in promised}


def random_image(graph: StaticMoRViT, batch: int) -> torch.Tensor:
    """Random input for a static graph, uint8 or float32 as it takes."""
    example, random = example_image(graph, batch), torch.Generator().manual_seed(0)
    if example.dtype == torch.uint8:
        return torch.randint(0, 256, example.shape, generator=random, dtype=torch.uint8)
    return torch.randn(example.shape, generator=random)


def batch_of(manifest: Manifest) -> int:
    """Images of a run: the bundle's batch, 2 where it is dynamic."""
    return 2 if manifest.batch == "dynamic" else int(manifest.batch)
