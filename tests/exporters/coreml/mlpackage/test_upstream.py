"""coremltools' passes without repeated work write the same packages."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
from coremltools.converters.mil.mil import Block, Builder, types
from coremltools.converters.mil.mil.types import type_mapping
from coremltools.models import MLModel
from tiny_models import make_config, own_bucket, random_model

from morvit_deploy.exporters.base import example_image
from morvit_deploy.exporters.coreml.contract.options import coreml_options
from morvit_deploy.exporters.coreml.mlpackage import convert as converting
from morvit_deploy.exporters.coreml.mlpackage import upstream
from morvit_deploy.exporters.coreml.mlpackage.compress import compress
from morvit_deploy.exporters.coreml.mlpackage.convert import Wanted, convert
from morvit_deploy.exporters.coreml.mlpackage.upstream import quick_passes
from morvit_deploy.graph.pieces import Whole
from morvit_deploy.graph.unroll import unroll

OWN = [(Block, "_propagate_nonreplaceable_vars"), (Block, "indented_str"), (type_mapping, "get_type_info")]


def functions() -> list[Any]:
    return [vars(owner)[name] for owner, name in OWN]


def converted(**wanted: Any) -> tuple[bytes, bytes]:
    """A function of a model large enough to be compressed, and its weights in eight bits."""
    config = make_config(embed_dim=64, mlp_dim=128)
    graph = unroll(random_model(config), own_bucket(config), coreml_options("uint8", "bsd", "topk"))
    found = convert(Whole(graph), [example_image(graph, 1)], Wanted(ios=18, pixels=True, **wanted))
    return tuple(spec_of(model) for model in (found.model, compress(found, "int8", graph)))  # type: ignore[return-value]


def spec_of(model: MLModel) -> bytes:
    spec = model.get_spec()
    spec.description.metadata.Clear()  # the date of the conversion
    return bytes(spec.SerializeToString(deterministic=True))


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_same_programs(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = converted(precision=precision)
    monkeypatch.setattr(converting, "quick_passes", nullcontext)
    assert converted(precision=precision) == quick


def test_values_of_compressed_weights_are_still_followed() -> None:
    import numpy as np

    @Builder.program(input_specs=[Builder.TensorSpec(shape=(2, 4))])
    def program(x: Any) -> Any:
        weight = Builder.constexpr_affine_dequantize(
            quantized_data=np.zeros((4, 4), np.int8), zero_point=np.int8(0), scale=np.float32(1), axis=0
        )
        return Builder.linear(x=Builder.relu(x=x), weight=weight)

    block = program.functions["main"]
    *_, activated, last = block.operations
    for value in (held := last.outputs[0], activated.outputs[0]):
        value._reset_nonreplaceable_vars_upstream()
    with quick_passes(), block:
        pass
    (followed,) = held.nonreplaceable_vars_upstream
    assert followed.op.op_type == "constexpr_affine_dequantize"


def test_the_library_s_own_after() -> None:
    own = functions()
    with quick_passes():
        assert not {*map(id, functions())} & {*map(id, own)}
        kind = types.tensor(types.fp32, (2, 3))
        assert type_mapping.get_type_info(kind) is type_mapping.get_type_info(kind)
        assert types.is_tensor(kind) and not types.is_tensor(types.fp32)
    assert functions() == own
    with pytest.raises(ValueError, match="in the passes"), quick_passes():
        raise ValueError("in the passes")
    assert functions() == own


def test_other_releases_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    own = functions()
    monkeypatch.setattr(upstream, "_owners", lambda: (None, type("types", (), {})))
    with quick_passes():
        assert functions() == own
