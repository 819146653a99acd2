"""Small MIL programs for tests: built with coremltools' builder, saved, and read again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from morvit_deploy.exporters.coreml.sdk.load import coremltools, quiet

ct = coremltools()
with quiet():
    from coremltools.converters.mil.mil import Builder, Function, Program, types

mb: Any = Builder
NUMPY_TYPES = {"fp16": np.float16, "fp32": np.float32, "int32": np.int32}


def save_program(
    path: Path, body: Callable[..., Any], inputs: Mapping[str, tuple[tuple[int, ...], str]], ios: int = 17
) -> Path:
    """Save the program that `body` builds of its inputs (name -> shape and type) as it is: no pass changes it."""

    target = getattr(ct.target, f"iOS{ios}")
    given = {
        name: mb.placeholder(shape, dtype=getattr(types, dtype)) for name, (shape, dtype) in inputs.items()
    }
    with Function(given, opset_version=target) as function:
        answers = body(**function.inputs)
        function.set_outputs(list(answers) if isinstance(answers, (list, tuple)) else [answers])
    program = Program()
    program.add_function("main", function)
    with quiet():
        model = ct.convert(
            program,
            convert_to="mlprogram",
            minimum_deployment_target=target,
            pass_pipeline=ct.PassPipeline.EMPTY,
            compute_precision=ct.precision.FLOAT32,  # as written
            skip_model_load=True,
        )
    model.save(str(path))
    return path
