"""Files that a board needs besides those of the bundle. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from morvit_deploy.agent.core.running import Runner


@dataclass(frozen=True)
class BoardFiles:
    """What a target's runner on the board reads besides the files of the manifest."""

    graphs: Mapping[str, str] = field(default_factory=dict)  # part of the bundle to its file
    alone: Mapping[str, bytes] = field(default_factory=dict)  # each bucket's graph without dispatch, if any
    alone_file: str = "alone-{}.onnx"  # of a bucket
    files: Mapping[str, bytes] = field(default_factory=dict)  # not in the bundle
    more: Mapping[str, object] = field(default_factory=dict)  # plain JSON for that runner
    # returns the expected logits; None: the bundle itself does
    open_reference: Callable[[], Runner] | None = None
