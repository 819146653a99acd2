"""Formats of `manifest.json`: the one that is written, and how an older one is read. No torch.

morvit-bundle/1 had a field for each target, `coreml` and `trt`, of which at most one was not null. Since
morvit-bundle/2 the target's entry is `target_form`, whatever the target.
"""

from __future__ import annotations

import json
from typing import Any, Final

from morvit_deploy.errors import BundleError
from morvit_deploy.strict_json import parse_json

FORMAT: Final = "morvit-bundle/2"
FIRST: Final = "morvit-bundle/1"
_OWN_FIELDS = ("coreml", "trt")  # of /1, named as the target


def upgraded(text: bytes, source: object = "manifest.json") -> bytes:
    """A manifest's text in today's format; any other text is returned unchanged. BundleError if it is not JSON."""
    fields = parse_json(text, source, BundleError, what=f"a {FORMAT} manifest")
    is_first = isinstance(fields, dict) and fields.get("format") == FIRST
    return json.dumps(from_first(fields)).encode() if is_first else text


def from_first(fields: dict[str, Any]) -> dict[str, Any]:
    """Convert a /1 manifest to /2. An entry of another target is kept, and refused as unknown later."""
    kept = {name: value for name, value in fields.items() if not (name in _OWN_FIELDS and value is None)}
    own = kept.pop(fields["target"], {}) if fields.get("target") in _OWN_FIELDS else {}
    return kept | {"format": FORMAT, "target_form": own}
