"""The mutants that are made, and that the mutant is what a test imports."""

from __future__ import annotations

import ast
from importlib.util import module_from_spec
from typing import Any

import pytest
from edits import edited, edits_of
from mutants import named, sample, source_of
from places import ROOT
from suites import SUITES
from trial import Mutant

from morvit_deploy.model import answers

SOURCE = '''
LIMIT: int = 3


def pick(values: list[int], *, least: int = 0) -> str:
    """Numbers above `least`: at most 3."""
    kept = sorted([value for value in values[: LIMIT + 1] if value > least], reverse=True)
    if not kept and least < 9:
        raise ValueError(f"got {len(values) + 1}, expected {least + 2}")
    return f"{kept[-1] + 1}" if any(kept) else "none"
'''
EXPECTED = {
    ("3", "4"), ("3", "2"), ("0", "1"),  # defaults too
    ("LIMIT + 1", "LIMIT - 1"), ("1", "2"), ("1", "0"),
    (":LIMIT + 1", ":LIMIT + 1 + 1"), (":LIMIT + 1", ":LIMIT + 1 + -1"),
    ("value > least", "value >= least"), ("True", "False"),
    ("not kept and least < 9", "not kept or least < 9"), ("not kept and least < 9", "not (not kept and least < 9)"),
    ("not kept", "kept"), ("least < 9", "least <= 9"), ("9", "10"), ("9", "8"),
    ("any(kept)", "all(kept)"), ("any(kept)", "not any(kept)"),
}  # fmt: skip  # a condition a line


def test_conditions_and_numbers_are_changed_and_nothing_that_is_read() -> None:
    found = {(edit.before, edit.after) for edit in edits_of(SOURCE)}
    assert found >= EXPECTED
    assert len(found - EXPECTED) == 3, (
        "the values that are kept, their order, and that they are sorted at all"
    )


def test_each_edit_is_one_change_and_keeps_its_line() -> None:
    made = {str(edit): ast.unparse(edited(SOURCE, edit)) for edit in edits_of(SOURCE)}
    assert len({*made.values()}) == len(made), "no two are alike"
    assert ast.unparse(ast.parse(SOURCE)) not in made.values()
    edit = next(edit for edit in edits_of(SOURCE) if edit.after == "value >= least")
    tree = edited(SOURCE, edit)
    assert edit.line == 7 and tree.body[1].body[1].lineno == 7  # type: ignore[attr-defined]  # a function
    functions: dict[str, Any] = {}
    exec(compile(tree, "mutant", "exec"), functions)
    assert functions["pick"]([1, 0]) == "1", "0 is kept too"


def test_a_sample_is_repeatable_and_of_every_package() -> None:
    first = sample(SUITES, 43, seed=1)
    assert first == sample(SUITES, 43, seed=1) != sample(SUITES, 43, seed=2)
    packages = [module.partition(".")[0] for module, _ in first]
    assert [packages.count(name) for name in ("model", "graph", "verifying", "calibration")] == [
        11,
        11,
        11,
        10,
    ]
    module, edit = first[0]
    assert named(f"{module}:{edit}") == (module, edit)


@pytest.mark.parametrize("module", SUITES)
def test_every_module_has_mutants_and_tests(module: str) -> None:
    assert edits_of(source_of(module))
    assert all((ROOT / name.partition("::")[0]).exists() for name in SUITES[module])


def test_the_mutant_is_what_is_imported() -> None:
    name = "morvit_deploy.model.answers.gates"
    edit = next(edit for edit in edits_of(source_of("model.answers.gates")) if edit.after == "1.01")
    finder = Mutant(name, edited(source_of("model.answers.gates"), edit))
    assert finder.find_spec("morvit_deploy.model.plan", None) is None
    spec = finder.find_spec(name, answers.__path__)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.allowed_misses(0.99, 100) == 0, "4 in the module as it is"
