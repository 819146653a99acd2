"""Names of baselines: a timm model, a speed model of examples/baselines, a preset, or an ONNX file. No torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from morvit_deploy.errors import ConfigError
from morvit_deploy.keywords import did_you_mean
from morvit_deploy.measuring.compare.baselines.ablation import ABLATIONS
from morvit_deploy.measuring.compare.baselines.published import METHODS, OTHERS, SETS, TABLE2, TABLE4
from morvit_deploy.model.presets import PRESETS

Kind = Literal["timm", "speed", "preset", "ablation", "file"]
SUFFIX = ".onnx"
BESIDE_THE_PACKAGE = Path(__file__).resolve().parents[4] / "examples" / "baselines"


@dataclass(frozen=True)
class Baseline:
    """What a name stands for, perhaps with a file of weights; `path` is an ONNX file or a speed model's code."""

    name: str
    kind: Kind
    weights: Path | None = None
    path: Path | None = None


def find_baselines(words: Iterable[str | Path], timm_names: Callable[[], Sequence[str]]) -> list[Baseline]:
    """Each once, in the order given; ConfigError names the closest model where there is none of a name.

    A word is `table2`, `table4`, a name, NAME=WEIGHTS, or a path that ends in .onnx. `timm_names` is called for
    names only.
    """
    expanded = [name for word in words for name in (SETS[str(word)]() if word in SETS else [word])]
    speed = speed_models()
    found = [_baseline(str(word), speed, timm_names) for word in expanded]
    return list({baseline.name: baseline for baseline in found}.values())


def speed_models() -> dict[str, Path]:
    """Name to file of the models in examples/baselines of the source; none in an installed wheel."""
    files = BESIDE_THE_PACKAGE.glob("*.py") if BESIDE_THE_PACKAGE.is_dir() else ()
    return {path.stem: path for path in sorted(files) if not path.stem.startswith("_")}


def _baseline(word: str, speed: dict[str, Path], timm_names: Callable[[], Sequence[str]]) -> Baseline:
    if word.endswith(SUFFIX):
        return Baseline(word, "file", path=_existing(Path(word), "an ONNX graph"))
    name, given, file = word.partition("=")
    weights = _existing(Path(file), f"weights of {name}") if given else None
    if name in speed:
        if weights is not None:
            raise ConfigError(f"{word}: {name} is a speed model, which has random weights; leave out ={file}")
        return Baseline(name, "speed", path=speed[name])
    if name in ABLATIONS:
        if weights is not None:
            raise ConfigError(f"{word}: {name} is an ablation, which has random weights; leave out ={file}")
        return Baseline(name, "ablation")
    if name in PRESETS:
        if weights is not None:
            raise ConfigError(
                f"{word}: {name} is a preset of `init`, which has random weights; convert and export {file}, and "
                "give the bundle"
            )
        return Baseline(name, "preset")
    if name in OWN and not speed:
        raise ConfigError(
            f"{name} is a speed model of examples/baselines, which comes with the source and not with the installed "
            "package; run `compare` in a clone of the repository, or give an .onnx file of it"
        )
    known = timm_names()
    if name.partition(".")[0] not in known:
        hint = (
            did_you_mean(name, [*SETS, *speed, *ABLATIONS, *PRESETS, *known])
            or f"; small ones are {', '.join(OTHERS)}"
        )
        raise ConfigError(
            f"got baseline {name!r}, expected {TABLE2}, {TABLE4}, a model of timm, one of {', '.join(OWN)}, a preset "
            f"of `init`, or a path that ends in {SUFFIX}{hint}"
        )
    return Baseline(name, "timm", weights)


OWN = ("ats", "sparseformer", "tct", "tokenlearner")
assert {*OWN} <= {method.baseline for method in METHODS}


def _existing(path: Path, what: str) -> Path:
    if not path.is_file():
        raise ConfigError(f"{path} is no file; expected {what}")
    return path
