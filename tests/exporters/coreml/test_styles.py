"""What coremltools makes of every style: operations, ranks and shapes of small programs, for each routing."""

from __future__ import annotations

from collections import Counter
from itertools import product
from typing import Any, get_args

import pytest
import torch
from adaptive_plans import depth_plan, threshold_plan
from config_matrix import REDUCING, named
from graph_styles import LAYOUTS, SELECTS, WORDS
from tiny_models import make_config, own_bucket, random_model

from morvit_deploy.errors import ConfigError
from morvit_deploy.exporters.coreml.contract.options import CoremlOptions, coreml_options
from morvit_deploy.exporters.coreml.mlpackage.convert import Wanted, convert
from morvit_deploy.exporters.coreml.proving.form import BY_INDEX
from morvit_deploy.graph.pieces import Named, StemPart, TrunkPart, Whole, name_carried
from morvit_deploy.graph.unroll import unroll, unroll_plan
from morvit_deploy.model.choices import Attention, Layout, Select
from morvit_deploy.model.routings.counting import leaves_keys_unformed

MOST_AXES = 5  # of a tensor in Core ML
SINGLE: list[dict[str, Any]] = [
    {},
    {"attention_scope": "all", "gate": "delta"},
    {"sharing": "cycle", "gate": "hard"},
    {"routing": "expert_choice_flat"},
    {"routing": "none", "register_tokens": 2},
    REDUCING[1],
    REDUCING[4],
]
LADDERS = {
    "thresholds": threshold_plan(make_config(), (0.1, 0.0, 0.2), [(9, 5, 2)]),
    "depths": depth_plan(make_config(routing="token_choice"), [(16, 8, 5, 3, 1)]),
}
ROUTING = {"thresholds": "expert_choice", "depths": "token_choice"}


def held(
    module: Named, example: list[torch.Tensor], select: Select, *, ios: int, precision: str
) -> Counter[str]:
    """The operations of a converted function, in which every dimension is known and no rank too high."""
    model = convert(module, example, Wanted(ios=ios, precision=precision, pixels=False)).model
    (function,) = model.get_spec().mlProgram.functions.values()
    (block,) = function.block_specializations.values()
    operations = [op for op in block.operations if op.type != "const"]
    for value in (value for op in operations for value in op.outputs):
        dimensions = value.type.tensorType.dimensions
        assert len(dimensions) <= MOST_AXES, value.name
        assert all(size.WhichOneof("dimension") == "constant" for size in dimensions), value.name
    counts = Counter(op.type for op in operations)
    if select == "onehot":
        assert not counts.keys() & {*BY_INDEX}
    return counts


@pytest.mark.parametrize(("layout", "select"), WORDS)
@pytest.mark.parametrize("changes", SINGLE, ids=named)
def test_a_single_function(changes: dict[str, Any], layout: Layout, select: Select) -> None:
    config = make_config(**changes)
    options = coreml_options("uint8", layout, select, with_depth=True)
    module = Whole(unroll(random_model(config), own_bucket(config), options))
    found = held(module, [torch.rand(1, 3, 32, 32)], select, ios=17, precision="fp16")
    steps = sum(kept < 16 for kept in config.capacity or ()) if config.record.reduces else 0
    norms = 2 * config.num_layers + 1 + steps * config.record.predicts  # a predictor has one
    assert found["layer_norm"] == norms  # recognised, over the channel axis too
    heads = config.num_heads if layout == "bc1s" else 1
    # where CLS alone attends to states, its heads are columns of one softmax
    alone = leaves_keys_unformed(config) * (heads - 1)
    # CLS's row is computed again where it selects, all heads at once
    assert found["softmax"] == config.num_layers * heads - alone + steps * config.record.weighs
    if layout == "bc1s":  # channels first throughout: what remains turns keys and one-hot labels
        assert found["conv"] > 4 * config.num_layers and not {"linear", "matmul"} & found.keys()
        turned = config.num_layers + 2 * config.num_steps + 2 + 2 * steps * config.record.weighs
        assert found["transpose"] <= turned


@pytest.mark.parametrize(("layout", "select"), WORDS)
@pytest.mark.parametrize("name", LADDERS)
def test_stem_and_trunks(name: str, layout: Layout, select: Select) -> None:
    plan, config = LADDERS[name], make_config(routing=ROUTING[name])
    options = coreml_options("uint8", layout, select, with_depth=True)
    graphs = unroll_plan(random_model(config), plan, options)
    image = torch.rand(1, 3, 32, 32)
    names, carried = name_carried(graphs["b0"], image)
    held(StemPart(graphs["b0"], plan, names), [image], select, ios=18, precision="fp32")
    for graph in graphs.values():
        held(TrunkPart(graph, names), carried, select, ios=18, precision="fp16")


@pytest.mark.parametrize("select", SELECTS)
def test_the_fused_operator_is_one(select: Select) -> None:
    config = make_config()
    options = coreml_options("uint8", "bsd", select, attention="fused")
    module = Whole(unroll(random_model(config), own_bucket(config), options))
    found = held(module, [torch.rand(1, 3, 32, 32)], select, ios=18, precision="fp16")
    assert found["scaled_dot_product_attention"] == config.num_layers - 1
    assert found["softmax"] == 1  # of the last block, whose K and V are not formed


@pytest.mark.parametrize("words", [*product(LAYOUTS, SELECTS, get_args(Attention))], ids="-".join)
def test_what_may_be_asked_has_a_style(words: tuple[Layout, Select, Attention]) -> None:
    layout, select, attention = words
    try:
        CoremlOptions(layout=layout, select=select, attention=attention)
    except ConfigError:
        with pytest.raises(ConfigError, match="static graph"):
            coreml_options("float", layout, select, attention=attention)
    else:
        style = coreml_options("float", layout, select, attention=attention).style
        assert style.one_hot == (select == "onehot") and style.single
