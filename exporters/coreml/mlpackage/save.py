"""From converted functions to one package on disk: weights once, a model card, the same bytes each time."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from pathlib import Path

from morvit_deploy.exporters.coreml.mlpackage.card import Card
from morvit_deploy.exporters.coreml.mlpackage.upstream import quick_passes
from morvit_deploy.exporters.coreml.sdk.load import Message, Model, coremltools, quiet
from morvit_deploy.exporters.functions.names import MAIN
from morvit_deploy.files import temporary

MODEL = Path("Data/com.apple.CoreML/model.mlmodel")
WEIGHTS = Path("Data/com.apple.CoreML/weights/weight.bin")
_ITEMS = "Manifest.json"
_DATE = "com.github.apple.coremltools.conversion_date"


def save_package(models: Mapping[str, Model], folder: Path) -> None:
    """Write functions as a package; equal weights of several functions are stored once."""
    ct = coremltools()
    with quiet(), quick_passes():
        if list(models) == [MAIN]:
            models[MAIN].save(str(folder))
            return
        with temporary("mil") as scratch:
            joined = ct.utils.MultiFunctionDescriptor()
            for name, model in models.items():
                part = str(scratch / f"{name}.mlpackage")
                model.save(part)
                joined.add_function(part, src_function_name=MAIN, target_function_name=name)
            joined.default_function_name = next(iter(models))
            ct.utils.save_multifunction(joined, str(folder))


def complete(folder: Path, card: Card) -> None:
    """Give a saved package its model card, and remove what differs from one export to the next."""
    from coremltools.proto import Model_pb2

    model = Model_pb2.Model()
    model.ParseFromString((folder / MODEL).read_bytes())
    _describe(model.description, card)
    (folder / MODEL).write_bytes(model.SerializeToString(deterministic=True))
    for notes in folder.glob("executorch_*.json"):  # of the converter: they say nothing about the model
        notes.unlink()
    _name_items(folder / _ITEMS)


def _describe(described: Message, card: Card) -> None:
    about = described.metadata
    about.author, about.license = card.author, card.license
    about.shortDescription, about.versionString = card.description, card.version
    about.userDefined.pop(_DATE, None)
    for name, text in card.metadata.items():
        about.userDefined[name] = text
    for owner in (described, *described.functions):
        for port in (*owner.input, *owner.output):
            port.shortDescription = card.ports.get(port.name, "")


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
