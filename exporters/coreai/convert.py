"""From torch modules to one Core AI program of several functions."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor
from torch.export import ExportedProgram

from morvit_deploy.errors import TargetError
from morvit_deploy.exporters.functions.names import plain_name
from morvit_deploy.exporters.functions.tracing import ANSWERS, IMAGE, Outputs
from morvit_deploy.graph.pieces import Named

PIXEL_SCALE = 2.0**-8  # of raw pixels: exact in fp16, and what a convolutional stem takes
HALF = torch.float16


class Program:
    """Collects functions, and writes them as one asset whose weights are stored once."""

    def __init__(self, precision: str, *, pixels: bool, probing: bool = False) -> None:
        with quiet():
            import coreai_torch
        self._half, self._pixels, self._torch = precision == "fp16", pixels, coreai_torch
        self._probing = probing
        self.probes: dict[str, list[str]] = {}  # function -> the values inside that it returns
        mode = coreai_torch.TorchConverter.Mode.RELEASE  # no stack traces: they name files of this machine
        self._converter = coreai_torch.TorchConverter(mode=mode)

    def add(self, function: str, part: Named, example: Sequence[Tensor]) -> None:
        """Add a function; TargetError names an operation that is refused."""
        probes = self._probes_of(part, example) if self._probing else []
        adapted = _Adapted(part, probes, half=self._half, pixels=self._pixels)
        self.probes[function] = probes
        inputs = [self._input(name, value) for name, value in zip(part.inputs, example, strict=True)]
        with quiet():
            program = _traced(adapted, inputs).run_decompositions(
                {**self._torch.get_decomp_table(), **LOWERED}
            )
            try:
                self._converter.add_exported_program(
                    program,
                    entrypoint_name=function,
                    input_names=[plain_name(name) for name in part.inputs],
                    output_names=[plain_name(name) for name in adapted.names],
                )
            except ValueError as error:
                raise refused(f"function {function}", error, program) from error

    def save(self, path: Path) -> None:
        """Convert all functions and write the asset; TargetError for what the converter refuses."""
        with quiet(), _refusing("the program"):
            self._converter.to_coreai().save_asset(path)

    @cached_property
    def text(self) -> str:
        """The program of all functions as Core AI prints it."""
        with quiet(), _refusing("the program"):
            return str(self._converter.to_coreai())

    def _probes_of(self, part: Named, example: Sequence[Tensor]) -> list[str]:
        halves = [self._input(name, value) for name, value in zip(part.inputs, example, strict=True)]
        inputs = example if part.inputs == (IMAGE,) else halves
        return [name for name in part(*inputs) if name not in part.results]

    def _input(self, name: str, value: Tensor) -> Tensor:
        if name == IMAGE and self._pixels:
            channels, height, width = value.shape[-3:]
            return torch.zeros(1, height, width, channels, dtype=torch.uint8)
        half = self._half and name != IMAGE and value.is_floating_point()
        return value.to(HALF) if half else value


def converted(
    parts: Iterable[tuple[str, Named, Sequence[Tensor]]],
    precision: str,
    *,
    pixels: bool,
    probing: bool = False,
    tell: Callable[[str], None] = lambda stage: None,
) -> Program:
    """The program of all functions: name, module, and inputs to trace it with."""
    program = Program(precision, pixels=pixels, probing=probing)
    for function, part, example in parts:
        tell(f"tracing {function}")
        program.add(function, part, example)
    return program


def _sorted(values: Tensor, dim: int = -1, descending: bool = False) -> tuple[Tensor, Tensor]:
    """A sort as the top-k of all values, which the converter takes, and lowers to a stable sort."""
    best, order = torch.topk(values, values.shape[dim], dim, largest=descending, sorted=True)
    return best, order


def _lowest(values: Tensor, dim: int, keepdim: bool = False) -> Tensor:
    """The position of the lowest value, as a top-k of one: the converter takes no argmin."""
    order = torch.topk(values, 1, dim, largest=False)[1]
    return order if keepdim else order.squeeze(dim)


# operations that the converter refuses, in its table of decompositions
LOWERED = {torch.ops.aten.sort.default: _sorted, torch.ops.aten.argmin.default: _lowest}


class _Adapted(Outputs):
    """A function as an app calls it: pixels in, logits in float32."""

    def __init__(self, module: Named, probes: Sequence[str], *, half: bool, pixels: bool) -> None:
        super().__init__(module, [*module.results, *probes])
        self._pixels, self._half = pixels, half
        self._takes_image = module.inputs == (IMAGE,)

    def named(self, *inputs: Tensor) -> dict[str, Tensor]:
        if self._takes_image and self._pixels:
            (image,) = inputs
            scaled = image.permute(0, 3, 1, 2).to(HALF if self._half else torch.float32) * PIXEL_SCALE
            inputs = (scaled,)
        out = super().named(*inputs)
        return out | {name: out[name].float() for name in ANSWERS if name in out}


def refused(where: str, error: Exception, program: ExportedProgram | None = None) -> TargetError:
    """What the converter did not take, in which function, and from which line of code it comes."""
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    nodes = program.graph.nodes if program is not None else ()
    sources = [
        f"{node.target} comes from {line}"
        for node in nodes
        if node.op == "call_function" and str(node.target) in str(error) and (line := _source(node))
    ]
    found = "".join(f"; {source}" for source in dict.fromkeys(sources))
    return TargetError(
        f"coreai-torch refuses {where}: {reason}{found}. Export to target coreml or onnx instead"
    )


@contextmanager
def _refusing(where: str) -> Iterator[None]:
    """Turn what the converter raises into a TargetError."""
    try:
        yield
    except (ValueError, RuntimeError, NotImplementedError, TypeError) as error:
        raise refused(where, error) from error


def _source(node: torch.fx.Node) -> str:
    """The innermost line of code that made a node, as "selection.py, line 133, in sort_by: …"."""
    lines = str(node.meta.get("stack_trace", "")).strip().splitlines()
    frames = [n for n, line in enumerate(lines) if line.lstrip().startswith("File ")]
    if not frames:
        return ""
    place = lines[frames[-1]].strip().removeprefix("File ")
    path, _, rest = place.partition(", ")
    code = " ".join(line.strip() for line in lines[frames[-1] + 1 :])
    return f"{Path(path.strip(chr(34))).name}, {rest}: {code}"


def _traced(module: Outputs, example: Sequence[Tensor]) -> ExportedProgram:
    return torch.export.export(module.eval(), tuple(example))


@contextmanager
def quiet() -> Iterator[None]:
    """Neither warnings about versions nor progress bars while the block runs."""
    with warnings.catch_warnings(), redirect_stderr(io.StringIO()), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
