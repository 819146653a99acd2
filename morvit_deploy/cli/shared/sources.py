"""Checkpoints of other formats in every command: options for what their files do not hold, and the conversion."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from morvit_deploy.cli.shared.console import note, warn, working
from morvit_deploy.cli.shared.derived import Group
from morvit_deploy.cli.shared.places import checkpoint_path
from morvit_deploy.errors import ConfigError, MorvitError
from morvit_deploy.exporters.options import Help
from morvit_deploy.files import temporary
from morvit_deploy.sources.tensors.names import is_foreign
from morvit_deploy.strict_json import MAX_DIGITS

if TYPE_CHECKING:
    from morvit_deploy.sources.settings.given import Given


@dataclass(frozen=True)
class Foreign(Group):
    """Settings that affect results but are not stored in a checkpoint of other code."""

    panel = "For a checkpoint of other code: settings that its files do not store"
    preprocess: Annotated[
        str | None,
        Help(
            "imagenet, inception, torchvision, cifar10, or a JSON file with the keys of config.json.",
            "NAME|FILE",
        ),
    ] = None
    norm_eps: Annotated[float | None, Help("Epsilon of LayerNorm.")] = None
    num_heads: Annotated[int | None, Help("Number of attention heads.")] = None
    activation: Annotated[str | None, Help("Of the MLP: gelu, gelu_tanh or relu.", "NAME")] = None
    gate: Annotated[str | None, Help("Residual gate: block, delta or hard.", "NAME")] = None
    alpha: Annotated[float | None, Help("Factor of the router's score.")] = None
    selection: Annotated[
        str | None,
        Help(
            "nested: tokens that left never return, and CLS always stays; flat: each step ranks all tokens.",
            "NAME",
        ),
    ] = None
    capacity: Annotated[str | None, Help("Tokens that run each step.", "K1,K2,…")] = None
    keep_rate: Annotated[
        float | None, Help("Of a model that drops tokens: the fraction that goes on at each of its layers.")
    ] = None
    drop_layers: Annotated[
        str | None, Help("Its layers at which tokens leave, from 0: 3,6,9 in EViT and DynamicViT.", "N,N,…")
    ] = None
    dropped: Annotated[
        str | None, Help("EViT: what becomes of tokens that leave: fused (into one token) or gone.", "NAME")
    ] = None
    dora_alpha: Annotated[float | None, Help("Alpha of DoRA layers that were not merged.")] = None
    image_size: Annotated[
        str | None,
        Help(
            "Image size in pixels; position embeddings are resampled if it is not that of training.", "N|HxW"
        ),
    ] = None
    trained_size: Annotated[
        str | None, Help("Image size of training, if --image-size is another one.", "N|HxW")
    ] = None
    patch_stride: Annotated[int | None, Help("Pixels from one patch to the next.")] = None
    pooling: Annotated[
        str | None,
        Help("What the head reads: cls, mean (of the patches), or mean_norm (then fc_norm).", "NAME"),
    ] = None
    head_activation: Annotated[
        str | None, Help("softmax: one class an image; sigmoid: each class yes or no; none: values.", "NAME")
    ] = None
    sharing: Annotated[
        str | None,
        Help("Require that unrolled layers are tied (none, cycle or middle_cycle); this is proved.", "NAME"),
    ] = None
    cycle_depth: Annotated[int | None, Help("With --sharing: number of unique blocks in the cycle.")] = None
    family: Annotated[str | None, Help("Read it as this family instead of detecting it.", "NAME")] = None
    entry: Annotated[
        str | None, Help("Entry of a training file that holds the weights: model, ema or state_dict", "NAME")
    ] = None
    prefix: Annotated[
        str | None, Help("Module inside it: use only the tensors whose names begin with P.", "P.")
    ] = None
    no_ema: Annotated[bool, Help("Use the trained weights where a file also has averaged ones.")] = False

    @property
    def typed(self) -> list[str]:
        """The options that were given, as typed."""
        given = (name for name, value in asdict(self).items() if value is not None and value is not False)
        return ["--" + name.replace("_", "-") for name in given]

    @property
    def settings(self) -> Given:
        """As the library takes them; ConfigError for a value that cannot be."""
        from morvit_deploy.sources.settings.given import Given

        given = {
            name: value for name, value in asdict(self).items() if name != "no_ema" and value is not None
        }
        if "capacity" in given:
            given["capacity"] = numbers("--capacity", given["capacity"], "65,43,21")
        if "drop_layers" in given:
            given["drop_layers"] = numbers("--drop-layers", given["drop_layers"], "3,6,9", least=0)
        return Given(ema=not self.no_ema, **given)


@dataclass(frozen=True)
class AlsoForeign(Foreign):
    """The same in the commands that take a checkpoint of other code beside their own work."""

    hidden = "All options of `convert` are accepted: see `morvit-deploy convert --help`."


@dataclass(frozen=True)
class Opened:
    """A native checkpoint folder, what the user gave for it, and the name by which its outputs are called."""

    folder: Path
    given: Path
    name: str


@contextmanager
def opened(checkpoint: Path | None, foreign: Foreign) -> Iterator[Opened]:
    """The checkpoint as a native folder: itself, or converted into a temporary one while the command runs."""
    path = checkpoint_path(checkpoint)
    given = foreign.settings
    if not is_foreign(path):
        if words := foreign.typed:
            raise ConfigError(
                f"{path} is a native checkpoint: its config.json says everything, so leave out "
                f"{', '.join(words)} (`morvit-deploy convert` changes its image size)"
            )
        yield Opened(path, path, _name(path))
        return
    with temporary("convert") as scratch:
        folder = scratch / "checkpoint"
        with working("loading PyTorch") as (tell, _):
            from morvit_deploy.sources.conversion import convert

            converted = convert(path, folder, given=given, tell=tell)
        detected = f"{path} is {converted.title}, detected from {converted.because[0]}; {converted.tied}"
        for remark in (detected, *converted.remarks):
            note(remark)
        warn(converted.warnings)
        try:
            yield Opened(folder, path, _name(path))
        except MorvitError as error:  # the user knows his file, not where it lay converted
            raise type(error)(str(error).replace(str(folder), f"{path} (converted)")) from error


def _name(path: Path) -> str:
    """The name of a checkpoint's outputs: its folder, or its file without the suffix."""
    return path.resolve().name if path.is_dir() else Path(path.name.removesuffix(".tar")).stem


def numbers(option: str, text: str, example: str, least: int = 1) -> tuple[int, ...]:
    """Whole numbers with commas, none below `least`; ConfigError for anything else."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and len(part) < MAX_DIGITS and int(part) >= least for part in parts):
        what = "positive numbers" if least else "whole numbers from 0"
        raise ConfigError(f"{option}: got {text!r}, expected {what} with commas, as in {example}")
    return tuple(int(part) for part in parts)
