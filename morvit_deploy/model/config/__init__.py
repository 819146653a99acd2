"""The configuration of a model: its fields, what contradicts among them, and how `config.json` is read."""

from __future__ import annotations

from morvit_deploy.model.config.config import FORMAT, GROWN, MAX_REGISTERS, NEW_FIELDS, Config, needs_grown
from morvit_deploy.model.config.parts import Preprocess, Reduction, RouterConfig, Threshold
from morvit_deploy.model.config.problems import MAX_PATCHES
from morvit_deploy.model.config.reading import checked, load_config, parse_config

__all__ = [
    "FORMAT",
    "GROWN",
    "MAX_PATCHES",
    "MAX_REGISTERS",
    "NEW_FIELDS",
    "Config",
    "Preprocess",
    "Reduction",
    "RouterConfig",
    "Threshold",
    "checked",
    "load_config",
    "needs_grown",
    "parse_config",
]
