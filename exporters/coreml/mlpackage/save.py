"""From converted functions to one package on disk: weights once, a model card, the same bytes each time."""

from __future__ import annotations

import json
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from morvit_deploy.exporters.coreml.contract.names import MAIN
from morvit_deploy.exporters.coreml.sdk.tools import coremltools, quiet

MODEL = Path("Data/com.apple.CoreML/model.mlmodel")
WEIGHTS = Path("Data/com.apple.CoreML/weights/weight.bin")
_ITEMS = "Manifest.json"
_DATE = "com.github.apple.coremltools.conversion_date"


def save_package(models: Mapping[str, Any], folder: Path) -> None:
    """Write functions as a package; equal weights of several functions are stored once."""
    ct = coremltools()
    with quiet():
        if list(models) == [MAIN]:
            models[MAIN].save(str(folder))
            return
        with tempfile.TemporaryDirectory(prefix="morvit-mil-") as scratch:
            joined = ct.utils.MultiFunctionDescriptor()
            for name, model in models.items():
                part = str(Path(scratch) / f"{name}.mlpackage")
                model.save(part)
                joined.add_function(part, src_function_name=MAIN, target_function_name=name)
            joined.default_function_name = next(iter(models))
            ct.utils.save_multifunction(joined, str(folder))


def complete(folder: Path, card: Mapping[str, Any]) -> None:
    """Give a saved package its model card, and take out what differs from one writing to the next.

    `card` has `author`, `license`, `description`, `version`, `ports` (name to sentence) and `facts` (name to text).
    """
    from coremltools.proto import Model_pb2

    spec = Model_pb2.Model()
    spec.ParseFromString((folder / MODEL).read_bytes())
    about = spec.description.metadata
    about.author, about.license = card["author"], card["license"]
    about.shortDescription, about.versionString = card["description"], card["version"]
    about.userDefined.pop(_DATE, None)
    for name, text in card["facts"].items():
        about.userDefined[name] = text
    described = spec.description
    for owner in (described, *described.functions):
        for port in (*owner.input, *owner.output):
            port.shortDescription = card["ports"].get(port.name, "")
    (folder / MODEL).write_bytes(spec.SerializeToString(deterministic=True))
    for notes in folder.glob(
        "executorch_*.json"
    ):  # of coremltools' converter: they say nothing about the model
        notes.unlink()
    _name_items(folder / _ITEMS)


def _name_items(path: Path) -> None:
    """Identifiers made from the items' paths instead of random ones."""
    listed = json.loads(path.read_text(encoding="utf-8"))
    names = {
        old: str(uuid.uuid5(uuid.NAMESPACE_URL, item["path"]))
        for old, item in listed["itemInfoEntries"].items()
    }
    items = {names[old]: item for old, item in listed["itemInfoEntries"].items()}
    listed["itemInfoEntries"] = dict(sorted(items.items()))
    listed["rootModelIdentifier"] = names[listed["rootModelIdentifier"]]
    path.write_text(json.dumps(listed, indent=4) + "\n", encoding="utf-8")
