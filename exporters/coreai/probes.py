"""Values inside a Core AI program: where they are, and a copy of the program that also returns them.

A program has no names for them. At export a second program is converted that returns the probes too; a value of the
shipped program that is computed in the same way, from the same inputs and constants, is the probe. To return it, the
printed program gets further outputs and is parsed again, through an interface of `coreai` that is not public.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

from morvit_deploy.exporters.coreai.asset import open_asset
from morvit_deploy.exporters.coreai.printed.unpack import UNPACK
from morvit_deploy.exporters.coreai.program import CONSTANT, OUTPUT, Graph, Operation, ProgramText
from morvit_deploy.exporters.functions.names import plain_name

Values: TypeAlias = dict[str, str]  # probe -> the value of a program, as it is printed

_VALUE = re.compile(r"%\w+(?:#\d+)?")
_CALLED = re.compile(r"@(\w+)")


def find_values(
    shipped: ProgramText, probing: ProgramText, names: Mapping[str, list[str]]
) -> dict[str, dict[str, str]]:
    """Function -> probe -> the value of the shipped program, for probes that it computes."""
    found: dict[str, dict[str, str]] = {}
    of_shipped, of_probing = _Digests(shipped), _Digests(probing)
    for function, wanted in names.items():
        places = {digest: value for value, digest in of_shipped.values(shipped.graphs[function]).items()}
        sought = _returned(probing.graphs[function], of_probing)
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


def _returned(graph: Graph, digests: _Digests) -> dict[str, list[str]]:
    """Digests of each output; of one that is only cast for the output, of what is cast, too."""
    known = digests.values(graph)
    (output,) = (op for op in graph.operations if op.kind == OUTPUT)
    found = {}
    for name, value in zip(graph.outputs, _VALUE.findall(output.head), strict=True):
        maker = graph.makers.get(value.removeprefix("%"))
        casts = _VALUE.findall(maker.head) if maker is not None and maker.kind == "cast" else []
        found[name] = [known[one] for one in (value, *casts)]
    return found


class _Digests:
    """A digest for each value of a program's functions: the same for the same computation."""

    def __init__(self, program: ProgramText) -> None:
        self._program = program
        self._graphs: dict[str, str] = {}

    def values(self, graph: Graph) -> dict[str, str]:
        """Name of each value, as it is read, to its digest."""
        found = {f"%arg{number}": name for number, name in enumerate(graph.inputs)}
        for op in graph.operations:
            text = f"{op.kind} {self._head(op, found)} {op.takes} {op.makes}"
            digest = hashlib.sha256(text.encode()).hexdigest()
            found[f"%{op.name}"] = digest
            found |= {f"%{op.name}#{number}": f"{digest}#{number}" for number in range(len(op.makes))}
        return found

    def _head(self, op: Operation, found: Mapping[str, str]) -> str:
        if op.kind == CONSTANT:
            return self._program.content(op)
        called = _CALLED.sub(lambda match: self._graph(match[1]), op.head)
        return _VALUE.sub(lambda match: found[match[0]], called)

    def _graph(self, name: str) -> str:
        """Digest of a part that functions call: its name is random."""
        if name not in self._graphs:
            graph = self._program.graphs[name]
            self._graphs[name] = self.values(graph)["%"]  # that of its output
        return self._graphs[name]


def write_probing(asset: Path, values: Mapping[str, Mapping[str, str]], copy: Path) -> None:
    """Write a copy of an asset whose functions also return these values, by the names of `plain_name`."""
    from coreai._compiler.ir import Module
    from coreai.authoring import AIProgram, Context

    text = str(open_asset(asset).program)
    kinds = ProgramText(text).graphs
    for function, probes in values.items():
        if probes:
            text = _returning(text, kinds[function], probes)
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
