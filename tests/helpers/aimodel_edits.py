"""A copy of a written Core AI asset under change, as the text of its program."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from morvit_deploy.exporters.coreai.printed.asset import open_asset


@dataclass
class AssetEdit:
    """A saved asset under change."""

    package: Path

    def __post_init__(self) -> None:
        self.text = self._written = str(open_asset(self.package).program)

    def save(self) -> None:
        """Write the program, if it was changed, through Core AI's own parser."""
        if self.text == self._written:
            return
        from coreai._compiler.ir import Module
        from coreai.authoring import AIProgram, Context

        shutil.rmtree(self.package)
        AIProgram._from_mlir_module(Module.parse(self.text, Context()._mlir_context)).save_asset(self.package)

    def function(self, name: str) -> str:
        """The text of one function."""
        begin = self.text.index(f"@{name}(")
        return self.text[begin : self.text.index("\n  }\n", begin)]

    def replace(self, function: str, *changes: tuple[str, str]) -> None:
        """Replace every occurrence of each text in one function."""
        old = new = self.function(function)
        for one, other in changes:
            assert one in new, one
            new = new.replace(one, other)
        self.text = self.text.replace(old, new)
