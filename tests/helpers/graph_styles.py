"""The styles of a static graph for Core ML, for the tests of all of them."""

from __future__ import annotations

from typing import get_args

from morvit_deploy.graph.style.blocks import FusedBlock
from morvit_deploy.graph.style.stems import ConvStem
from morvit_deploy.graph.style.styles import STYLES
from morvit_deploy.model.choices import Layout, Select

LAYOUTS: tuple[Layout, ...] = get_args(Layout)
SELECTS: tuple[Select, ...] = get_args(Select)
COREML = {name: style for name, style in STYLES.items() if style.stem is ConvStem}
FUSED = [name for name, style in COREML.items() if style.block is FusedBlock]
MANUAL = [name for name in COREML if name not in FUSED]
WORDS = [tuple(name.split("-")) for name in MANUAL]  # layout and select of each
