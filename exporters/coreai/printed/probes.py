"""Compares computations of Core AI programs, finds values inside one, and writes a copy that also returns them.

A program has no names for them. At export a second program is converted that returns the probes too; a value of the
shipped program that is computed in the same way, from the same inputs and constants, is the probe. To return it, the
printed program gets further outputs and is parsed again, through an interface of `coreai` that is not public.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

from morvit_deploy.exporters.coreai.printed.asset import open_asset
from morvit_deploy.exporters.coreai.printed.program import CONSTANT, OUTPUT, Graph, Operation, ProgramText
from morvit_deploy.exporters.coreai.printed.unpack import UNPACK
from morvit_deploy.exporters.coreai.printed.wide import with_wide_products
from morvit_deploy.exporters.functions.names import plain_name

Values: TypeAlias = dict[str, str]  # probe -> the value of a program, as it is printed

_VALUE = re.compile(r"%\w+(?:#\d+)?")
_CALLED = re.compile(r"@(\w+)")


def find_values(shipped: Digests, probing: Digests, names: Mapping[str, list[str]]) -> dict[str, Values]:
    """Function -> probe -> the value of the shipped program, for probes that it computes."""
    found: dict[str, Values] = {}
    for function, wanted in names.items():
        graph = shipped.program.graphs[function]
        places = {digest: value for value, digest in shipped.values(graph).items()}
        sought = _returned(probing.program.graphs[function], probing)
        matches = {
            name: [places[digest] for digest in sought[plain_name(name)] if digest in places]
            for name in wanted
        }
        found[function] = {name: values[0] for name, values in matches.items() if values}
    return found


def renumbered(
    inside: Mapping[str, Values], plain: ProgramText, compressed: ProgramText
) -> dict[str, Values]:
    """The same values of a program whose weights were compressed: what it computes stays in order."""
    found = {}
    for function, values in inside.items():
        before, after = (
            [op for op in program.graphs[function].operations if op.kind not in (CONSTANT, *UNPACK)]
            for program in (plain, compressed)
        )
        names = {f"%{old.name}": f"%{new.name}" for old, new in zip(before, after, strict=True)}
        cut = {probe: value.partition("#") for probe, value in values.items()}
        found[function] = {probe: names[name] + mark + part for probe, (name, mark, part) in cut.items()}
    return found


def _returned(graph: Graph, digests: Digests) -> dict[str, list[str]]:
    """Digests of each output; of one that is only cast for the output, of what is cast, too."""
    known = digests.values(graph)
    (output,) = (op for op in graph.operations if op.kind == OUTPUT)
    found = {}
    for name, value in zip(graph.outputs, _VALUE.findall(output.head), strict=True):
        maker = graph.makers.get(value.removeprefix("%"))
        casts = _VALUE.findall(maker.head) if maker is not None and maker.kind == "cast" else []
        found[name] = [known[one] for one in (value, *casts)]
    return found


class Digests:
    """A digest for each value of a program's functions: the same for the same computation.

    `named` gives the names of weights, which then stand for their values.
    """

    def __init__(
        self, program: ProgramText, named: Callable[[Operation], str | None] = lambda operation: None
    ) -> None:
        self.program, self._named = program, named
        self._graphs: dict[str, str] = {}

    def values(self, graph: Graph) -> dict[str, str]:
        """Name of each value, as it is read, to its digest."""
        found = {f"%arg{number}": name for number, name in enumerate(graph.inputs)}
        for op in graph.operations:
            if weight := self._named(op):
                text = f"weight {weight} {op.makes}"
            else:
                text = f"{op.kind} {self._head(op, found)} {op.takes} {op.makes}"
            text += graph.declared if op.kind == OUTPUT else ""
            digest = hashlib.sha256(text.encode()).hexdigest()
            found[f"%{op.name}"] = digest
            found |= {f"%{op.name}#{number}": f"{digest}#{number}" for number in range(len(op.makes))}
        return found

    def _head(self, op: Operation, found: Mapping[str, str]) -> str:
        if op.kind == CONSTANT:
            return self.program.content(op)
        called = _CALLED.sub(lambda match: self._graph(match[1]), op.head)
        return _VALUE.sub(lambda match: found[match[0]], called)

    def _graph(self, name: str) -> str:
        """Digest of a part that functions call: its name is random."""
        if name not in self._graphs:
            graph = self.program.graphs[name]
            self._graphs[name] = self.values(graph)["%"]  # that of its output
        return self._graphs[name]


def program_violations(ours: Digests, theirs: Digests) -> list[str]:
    """The first operation of each function, or the output, that a conversion of the static graphs does not have.

    That conversion may return values inside, too.
    """
    violations = []
    for graph in ours.program.functions:
        again = theirs.program.graphs[graph.name]
        packed = {part.name for op in graph.operations for part in op.parts}
        known, digests = {*theirs.values(again).values()}, ours.values(graph)
        operations = [op for op in graph.operations if op.kind != OUTPUT and op.name not in packed]
        wrong = [f"{op.kind} %{op.name}" for op in operations if digests[f"%{op.name}"] not in known]
        found, expected = _returned(graph, ours), _returned(again, theirs)
        wrong += [f"output {name}" for name in graph.outputs if found[name] != expected[name]]
        violations += [
            f"{graph.name}: {one} differs from what coreai-torch writes of the static graph"
            for one in wrong[:1]
        ]
    return violations


def write_copy(asset: Path, values: Mapping[str, Mapping[str, str]], copy: Path, *, wide: bool) -> None:
    """Write a copy of an asset whose functions also return these values, by the names of `plain_name`.

    With `wide`, fp16 products are summed in float32.
    """
    from coreai._compiler.ir import Module
    from coreai.authoring import AIProgram, Context

    text = str(open_asset(asset).program)
    kinds = ProgramText(text).graphs
    for function, probes in values.items():
        if probes:
            text = _returning(text, kinds[function], probes)
    text = with_wide_products(text) if wide else text
    AIProgram._from_mlir_module(Module.parse(text, Context()._mlir_context)).save_asset(copy)


def _returning(text: str, graph: Graph, probes: Mapping[str, str]) -> str:
    """The program's text, in which one function also returns values."""
    types = {name: _type_of(graph, value) for name, value in probes.items()}
    begin = text.index(f"coreai.graph @{graph.name}(")
    ports = "".join(f', {kind} {{coreai.name = "{plain_name(name)}"}}' for name, kind in types.items())
    line_end = text.index("\n", begin)
    text = text[: line_end - len(") {")] + ports + text[line_end - len(") {") :]
    begin = text.index("\n    coreai.output ", line_end)
    end = text.index("\n", begin + 1)
    read, _, made = text[begin:end].partition(" : ")
    output = ", ".join([read, *probes.values()]) + " : " + ", ".join([made, *types.values()])
    return text[:begin] + output + text[end:]


def _type_of(graph: Graph, value: str) -> str:
    name, _, number = value.removeprefix("%").partition("#")
    kind = graph.makers[name].makes[int(number or 0)]
    return f"tensor<{'x'.join([*map(str, kind.shape), kind.dtype])}>"
