"""Hides probes: values traced as outputs become inner values of a converted function and keep their names."""

from __future__ import annotations

from collections.abc import Sequence

from morvit_deploy.exporters.coreml.sdk.load import Message


def hide(spec: Message, hidden: Sequence[str]) -> set[str]:
    """Remove values from the outputs of a model's functions; returns the names that are still computed.

    Where a value is only the cast of another for the output, the other one gets its name.
    """
    alive: set[str] = set()
    for function in spec.mlProgram.functions.values():
        for block in function.block_specializations.values():
            kept = [name for name in block.outputs if name not in hidden]
            _uncast(block, [name for name in block.outputs if name in hidden])
            del block.outputs[:]
            block.outputs.extend(kept)
            drop_unread(block)
            alive |= {value.name for operation in block.operations for value in operation.outputs}
    ports = [port for port in spec.description.output if port.name not in hidden]
    del spec.description.output[:]
    spec.description.output.extend(ports)
    return alive


def _uncast(block: Message, hidden: Sequence[str]) -> None:
    """Give the name of a hidden value that is only a cast to the value that is cast."""
    makers = {value.name: operation for operation in block.operations for value in operation.outputs}
    read = {name for operation in block.operations for name in _reads(operation)}
    names: dict[str, str] = {}
    for name in hidden:
        if makers[name].type != "cast" or name in read:
            continue
        source = makers[name].inputs["x"].arguments[0].name
        if source in makers and source not in (*block.outputs, *names):
            names |= {source: name, name: f"{name}_cast"}
    rename(block, names)


def drop_unread(block: Message) -> None:
    """Remove operations that no output depends on."""
    needed = set(block.outputs)
    kept = []
    for operation in reversed(block.operations):
        if any(value.name in needed for value in operation.outputs):
            needed |= _reads(operation)
            kept.append(operation)
    kept.reverse()
    del block.operations[:]
    block.operations.extend(kept)


def rename(block: Message, names: dict[str, str]) -> None:
    """Rename values of a block wherever they are computed, read or returned."""
    for operation in block.operations:
        for value in operation.outputs:
            value.name = names.get(value.name, value.name)
        for argument in operation.inputs.values():
            for binding in argument.arguments:
                if binding.name:
                    binding.name = names.get(binding.name, binding.name)


def _reads(operation: Message) -> set[str]:
    return {
        binding.name
        for argument in operation.inputs.values()
        for binding in argument.arguments
        if binding.name
    }
