"""Conversion of a checkpoint to a native one: read it, detect its family, map every key, check the result."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from morvit_deploy.errors import CheckpointError, KeywordError
from morvit_deploy.files import check_free, check_utf8
from morvit_deploy.keywords import checks_keywords
from morvit_deploy.model.checkpoint import build_model, checkpoint_files, save_checkpoint
from morvit_deploy.model.config import FORMAT, GROWN, needs_grown, parse_config
from morvit_deploy.model.reference import MoRViT
from morvit_deploy.report import Report, Shown
from morvit_deploy.sources.detection import recognise
from morvit_deploy.sources.families.family import Draft, Family
from morvit_deploy.sources.outputs.comparison import check_source
from morvit_deploy.sources.outputs.gap import SourceGap
from morvit_deploy.sources.settings.given import Given, Questions, Settings, Settled
from morvit_deploy.sources.tensors.keymap import Row
from morvit_deploy.sources.tensors.names import CONFIG
from morvit_deploy.sources.tensors.reading import Contents, read_source

if TYPE_CHECKING:
    from typing_extensions import Unpack

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Converted(Shown):
    """A converted model, and a record of the conversion."""

    model: MoRViT
    source: Path
    family: str
    title: str
    because: list[str]  # the keys from which the family was detected
    contents: Contents
    settled: dict[str, Settled]  # settings that affect logits, and where they were read
    rows: list[Row]  # source key -> target key
    tied: str
    remarks: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)  # settings that depart from the published ones
    folder: Path | None = None  # where it was written
    reference: SourceGap | None = None  # the comparison with the source's own outputs, if they were given

    def __repr__(self) -> str:
        return f"Converted({str(self.source)!r}, family={self.family!r}, {self.model.config!r})"

    def report(self) -> Report:
        """What was detected, what was settled, and what became of the tensors."""
        from morvit_deploy.sources.views import conversion_report

        return conversion_report(self, self.folder, explain=False)

    def as_dict(self) -> dict[str, Any]:
        """`convert --json`."""
        return {
            "source": str(self.source),
            "family": self.family,
            "because": self.because,
            "wrapper": self.contents.wrapper,
            "prefix": self.contents.prefix,
            "settled": {name: {"value": one.value, "from": one.origin} for name, one in self.settled.items()},
            "ties": self.tied,
            "remarks": self.remarks,
            "reference": self.reference.as_dict() if self.reference else None,
            "warnings": self.warnings,
            "arguments": {
                "used": sorted(self.contents.arguments.used),
                "not_used": self.contents.arguments.unread(),
            },
            "tensors": [
                {"source": row.source, "target": row.target, "how": row.how, "shape": list(row.shape)}
                for row in self.rows
            ],
            "dropped": self.contents.dropped,
            "config": self.model.config.model_dump(mode="json"),
        }


def read_model(source: str | Path, given: Given | None = None, tell: Tell = lambda stage: None) -> Converted:
    """Read a checkpoint of any supported family as a reference model in float32.

    Raises CheckpointError for unsupported files, families and tensors, and ConfigError for missing options.
    """
    source, given = Path(source), given or Given()
    tell("reading the checkpoint")
    contents = read_source(source, ema=given.ema, entry=given.entry, prefix=given.prefix)
    found = recognise(contents, given.family)
    _refuse_reduced(contents, found.family)
    questions = Questions(given)
    draft = _drafted(found.family, contents, questions)
    questions.close(source, found.family.title)
    tensors, narrowed = _narrow(draft.tensors)
    remarks = [*draft.remarks, *narrowed]
    warnings = questions.warnings
    provenance = {
        "family": found.family.name,
        "files": contents.files,
        **({"entry": contents.wrapper} if contents.wrapper else {}),
        **({"prefix": contents.prefix} if given.prefix else {}),
        "settled": {
            name: {"value": one.value, "from": one.origin} for name, one in questions.settled.items()
        },
        **({"remarks": remarks} if remarks else {}),
        **({"warnings": warnings} if warnings else {}),
        **({"before": draft.before} if draft.before else {}),
    }
    fields = json.dumps({**draft.fields, "format": GROWN, "provenance": provenance})
    config = parse_config(fields, source=f"{source} as {GROWN}")
    if not needs_grown(config):
        config = config.model_copy(update={"format": FORMAT})
    return Converted(
        model=build_model(config, tensors, source),
        source=source,
        family=found.family.name,
        title=found.family.title,
        because=found.because,
        contents=contents,
        settled=questions.settled,
        rows=draft.rows,
        tied=draft.tied,
        remarks=remarks,
        warnings=warnings,
    )


@checks_keywords(lambda: Settings.__annotations__)
def convert(
    source: str | Path,
    out: str | Path,
    *,
    given: Given | None = None,
    force: bool = False,
    reference: str | Path | None = None,
    tell: Tell = lambda stage: None,
    **settings: Unpack[Settings],
) -> Converted:
    """Convert a checkpoint of a supported family to a native folder at `out`, atomically.

    Settings that the files do not contain are given as keywords (the fields of `Given`: preprocess, norm_eps,
    num_heads, …) or as one `given`. `reference` is an `.npz` file with `images` or `inputs` and the `logits` that
    your own model returned for them; the reading of the checkpoint is checked against them. Raises CheckpointError,
    ConfigError, OutputError, or ParityError if the logits differ; then nothing is written.

    >>> md.convert("deit_tiny.pth", "checkpoint", preprocess="imagenet", norm_eps=1e-6, pooling="cls")
    """
    if given is not None and settings:
        raise KeywordError(f"convert() takes `given` or keywords, got both: {', '.join(settings)}")
    given = given or Given(**settings)
    files = [Path(one) for one in (source, given.preprocess, reference) if isinstance(one, (str, Path))]
    check_utf8(Path(out))
    check_free(Path(out), marker=CONFIG, lists=checkpoint_files, force=force, inputs=files)
    converted = read_model(source, given, tell)
    if reference is not None:
        converted = checked(converted, reference, tell)
    tell("writing")
    save_checkpoint(converted.model, out, force=force)
    return replace(converted, folder=Path(out))


def checked(converted: Converted, reference: str | Path, tell: Tell = lambda stage: None) -> Converted:
    """Check a conversion against the source's own outputs, and record it in the provenance.

    Raises ParityError if they differ, and ConfigError for a file that cannot be used.
    """
    tell("comparing with the source's own outputs")
    gap = check_source(converted.model, reference, f"{converted.source} was not converted")
    model = converted.model
    provenance = {**(model.config.provenance or {}), "reference": gap.model_dump(mode="json")}
    model.config = model.config.model_copy(update={"provenance": provenance})
    return replace(converted, reference=gap)


WHY_NOT = {  # method that reduces tokens -> why it is not supported, or what to do
    "A-ViT": "its output is a mixture over layers, and the constants of its gate are in no file",
    "ATS": "it samples tokens, and how many depends on the image",
    "Evo-ViT": "it updates the tokens that leave by a summary of them, and classifies by the mean of all patches",
    "ToMe": "it has no weights of its own; save the tensors alone, and say how many tokens to merge when you export",
}


def _refuse_reduced(contents: Contents, family: Family) -> None:
    """Raise CheckpointError for a model that reduces its tokens by another method than its family's."""
    method = contents.arguments.method()
    if not method or method == family.method:
        return
    read = f"it is read as {family.title} because of --family; leave that out"
    raise CheckpointError(
        f"{contents.path} was trained as {contents.arguments.reduction()}: it drops or merges tokens between layers. "
        f"Its tensors are those of a plain ViT, but its logits are not: {WHY_NOT.get(method, read)}. If your model "
        "runs every token through every layer in spite of this, save its tensors alone: "
        "torch.save(model.state_dict(), PATH)"
    )


def _drafted(family: Family, contents: Contents, questions: Questions) -> Draft:
    """Return the family's draft; CheckpointErrors name the file."""
    try:
        return family.draft(contents, questions)
    except CheckpointError as error:
        named = str(contents.path) in str(error)
        raise CheckpointError(str(error) if named else f"{contents.path}: {error}") from None


def _narrow(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Convert float64 tensors to float32, with a remark."""
    wide = [name for name, t in tensors.items() if t.dtype == torch.float64]
    narrowed = {name: t.float() if t.dtype == torch.float64 else t for name, t in tensors.items()}
    return narrowed, [f"{len(wide)} float64 tensors rounded to float32"] if wide else []
