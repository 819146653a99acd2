"""Reads a configuration: from text, from a checkpoint's folder, and again from one that training may have changed."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from morvit_deploy.errors import ConfigError
from morvit_deploy.model.config.config import FORMAT, GROWN, Config
from morvit_deploy.strict_fields import explain
from morvit_deploy.strict_json import parse_json

WHAT = f"a {FORMAT} configuration"


def parse_config(text: str | bytes, source: str = "config.json") -> Config:
    """Parse the text of a `config.json`; ConfigError lists every wrong field."""
    fields = parse_json(text, source, what=WHAT)
    stated = fields.get("format") if isinstance(fields, dict) else None
    try:
        return Config.model_validate_json(text)
    except ValidationError as error:
        kind = GROWN if stated == GROWN else FORMAT
        raise ConfigError(f"{source} is not a {kind} configuration:\n{explain(error)}") from None


def checked(config: Config) -> Config:
    """Return a configuration that training may have changed as it would be read; ConfigError if it could not be."""
    try:
        return Config.model_validate(dict(config), strict=False)  # lists become tuples
    except ValidationError as error:
        raise ConfigError(
            f"the model's configuration is not one of {config.format}:\n{explain(error)}"
        ) from None


def load_config(folder: Path) -> Config:
    """Read `folder/config.json`; ConfigError if it is missing or wrong."""
    path = folder / "config.json"
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"cannot read {path}: {error.strerror}; a checkpoint is a folder with config.json and "
            "model.safetensors (`morvit-deploy init` writes one)"
        ) from None
    fields = parse_json(text, path, what=WHAT)
    if isinstance(fields, dict) and "format" not in fields:
        raise ConfigError(
            f"{path} is not {WHAT}: it has no field `format`; if other code wrote this checkpoint, "
            f"convert it with `morvit-deploy convert {folder} -o DIR`"
        )
    return parse_config(text, source=str(path))
