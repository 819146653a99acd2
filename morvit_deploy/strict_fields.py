"""What the file formats share: fields that are checked strictly, and one message for each problem."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from morvit_deploy.errors import listed

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
            lines.append(f"{field or 'file'}: got {short(item['input'])}; {item['msg']}")
    return listed(lines)


def short(value: Any) -> str:
    """Return a value as an error shows it."""
    return cut(repr(value))


def cut(text: str) -> str:
    """Return a text of at most 60 characters, with its end left out."""
    return text if len(text) <= 60 else text[:57] + "..."
