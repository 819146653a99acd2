"""What the file formats share: fields that are checked strictly, and one message for each problem."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from morvit_deploy.errors import listed

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Strict(BaseModel):
    """Base of all file formats: frozen, no unknown fields, no type conversions."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def explain(error: ValidationError) -> str:
    """Return a ValidationError as text, one line per problem: field, value received, what is wrong."""
    lines = []
    for item in error.errors():
        field = ".".join(str(part) for part in item["loc"])
        if item["type"] == "value_error":  # our own checks name their field
            lines += str(item["ctx"]["error"]).split("\n")
        elif item["type"] == "missing":
            lines.append(f"{field}: missing; this field has no default")
        elif item["type"] == "extra_forbidden":
            lines.append(f"{field}: unknown field")
        else:
            newer = _newer(item) if field == "format" else ""
            lines.append(f"{field or 'file'}: got {short(item['input'])}; {item['msg']}{newer}")
    return listed(lines)


def _newer(item: ErrorDetails) -> str:
    """What to do about a format of a later version: `morvit-plan/3` where `morvit-plan/1` is read."""
    name, _, number = str(item["input"]).partition("/")
    known = re.findall(rf"'{re.escape(name)}/(\d+)'", item["msg"])
    is_newer = known and number.isdecimal() and int(number) > max(map(int, known))
    return "; a newer version of morvit-deploy wrote this file: update this one" if is_newer else ""


def short(value: Any) -> str:
    """Return a value as an error shows it."""
    return cut(repr(value))


def cut(text: str) -> str:
    """Return a text of at most 60 characters, with its end left out."""
    return text if len(text) <= 60 else text[:57] + "..."
