"""What a proof reads off the written files, in the words that every report understands."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Structure:
    """What is known of the written files; of what a target cannot read, the defaults."""

    macs: dict[str, int]  # one image, for each bucket
    nodes: int = 0
    operators: dict[str, int] = field(default_factory=dict)  # how many there are of each
    block_applications: dict[str, int] = field(default_factory=dict)  # the same in every bucket
    weight_bytes: int = 0
    file_bytes: int = 0
    violations: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """For the manifest."""
        return {"proved": not self.violations, **asdict(self)}
