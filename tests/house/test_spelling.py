"""What users read has American spelling: help texts, progress, remarks, and errors."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from places import ROOT
from spelling import british

FOLDERS = ("morvit_deploy", "exporters", "calibration")
SHOWN = ("Arg", "Help", "Table", "note", "remark", "tell", "warn")  # calls whose texts are shown
FILES = sorted(
    path
    for folder in FOLDERS
    for path in (ROOT / folder).rglob("*.py")
    if not any(part.is_symlink() for part in path.parents)
)


def shown(tree: ast.Module) -> Iterator[ast.AST]:
    """Statements and calls whose texts users see, and the docstrings of commands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise):
            yield node
        elif isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in SHOWN or name.endswith("Error"):
                yield node
        elif isinstance(node, ast.FunctionDef) and any(
            "command" in ast.dump(one) for one in node.decorator_list
        ):
            yield node.body[0]


def texts(node: ast.AST) -> Iterator[str]:
    for part in ast.walk(node):
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            yield part.value


@pytest.mark.parametrize("file", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_messages_have_american_spelling(file: Path) -> None:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    found = {word for node in shown(tree) for text in texts(node) for word in british(text)}
    assert not found, f"{file} shows {found}"
