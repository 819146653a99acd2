"""A Core AI program against a new conversion of the static graphs, operation by operation."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from morvit_deploy.bundle.manifest import Manifest
from morvit_deploy.exporters.coreai.compressed import Stored
from morvit_deploy.exporters.coreai.convert import Program, converted
from morvit_deploy.exporters.coreai.form import CoreaiForm
from morvit_deploy.exporters.coreai.names import TESTED
from morvit_deploy.exporters.coreai.printed.probes import Digests, find_values, program_violations
from morvit_deploy.exporters.coreai.printed.program import ProgramText
from morvit_deploy.exporters.functions.tracing import functions
from morvit_deploy.graph.unroll import StaticMoRViT
from morvit_deploy.machine.this import versions


def converted_again(graphs: Mapping[str, StaticMoRViT], manifest: Manifest) -> Program | None:
    """What coreai-torch writes of the static graphs; None where other versions wrote the asset."""
    names = tuple(TESTED)
    if versions(names) != {name: manifest.versions.get(name) for name in names}:
        return None
    parts = functions(dict(graphs), manifest.plan)
    return converted(parts, manifest.precision, pixels=manifest.input == "uint8", probing=True)


def differences(program: ProgramText, form: CoreaiForm, again: Program, stored: Stored) -> list[str]:
    """What differs from a new conversion in the program, and in where the manifest says that values inside are.

    Of a weight in an asset of compressed ones its name is compared: its values are checked elsewhere.
    """
    both = program, ProgramText(again.text)
    ours, theirs = (Digests(one) if form.exact else Digests(one, partial(stored.named, one)) for one in both)
    if differing := program_violations(ours, theirs):
        return differing
    inside = find_values(ours, theirs, again.probes)
    wrong = sorted(name for name in inside | form.inside if inside.get(name) != form.inside.get(name))
    return [f"{name}: the manifest's places of values inside are others than the program's" for name in wrong]
