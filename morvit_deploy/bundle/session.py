"""Running a bundle: named arrays in, named arrays out, whatever the runtime. No torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from morvit_deploy.agent.core import running
from morvit_deploy.agent.core.running import Arrays, Runner
from morvit_deploy.bundle.answers import check_finite
from morvit_deploy.bundle.known import known_target
from morvit_deploy.bundle.manifest import Manifest
from morvit_deploy.bundle.pixels import Pixels, normalise, read_image
from morvit_deploy.errors import AnswerError, ImageError, MorvitError, TargetError
from morvit_deploy.machine import integer_kernels
from morvit_deploy.machine.integer_kernels import IntegerKernels
from morvit_deploy.model.answers.heads import SOFTMAX, probabilities
from morvit_deploy.model.config import Config
from morvit_deploy.model.precision import Lowering

OVERFLOWING = "compare the bundle with its checkpoint (`morvit-deploy verify`); below fp32, export it in fp32"


class HostDispatch(running.HostDispatch):
    """The agent's `HostDispatch` with buckets, batch and carried values from a manifest."""

    def __init__(self, manifest: Manifest, stem: Runner, open_trunk: Callable[[str], Runner]) -> None:
        self.manifest = manifest
        names = [bucket.name for bucket in manifest.plan.buckets]
        carried = [port.name for port in manifest.carried]
        super().__init__(names, manifest.batch, carried, stem, open_trunk)


@dataclass(frozen=True)
class Guess:
    """One class of a prediction."""

    index: int
    label: str
    probability: float  # of a head of activation none, which has no probabilities, the logit


class Session:
    """An opened bundle, which takes pictures and returns arrays. Made by `open_bundle`; a context manager."""

    def __init__(self, folder: Path, manifest: Manifest, runner: Runner) -> None:
        self.folder, self.manifest, self.runner = folder, manifest, runner

    def __repr__(self) -> str:
        return f"Session({str(self.folder)!r}, {self.manifest.described})"

    @property
    def warnings(self) -> tuple[str, ...]:
        """Why results on this machine may be worse, or runs slower, than where the bundle was exported."""
        return (*warnings_here(self.manifest), *self.runner.remarks)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *error: object) -> None:
        self.runner.close()

    def read(self, path: str | Path, *, upscale: bool = False, exif: bool = False) -> Pixels:
        """A picture file as the pixels this bundle takes, uint8 (height, width, channels)."""
        size = self.manifest.config.image_size
        return read_image(path, self.manifest.preprocess, size, upscale=upscale, exif=exif)

    def run(self, pixels: Pixels) -> Arrays:
        """uint8 (n, height, width, channels), any n, to every output of the graph, n rows each.

        A bundle of fixed batch runs its batch at a time; the last one is padded and the padding cut off. Raises
        ImageError for other pixels, TargetError when the runtime fails.
        """
        config = self.manifest.config
        shape = (*config.image_shape, config.in_channels)
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1:] != shape or not len(pixels):
            expected = ", ".join(map(str, shape))
            raise ImageError(
                f"got pixels {pixels.dtype} {list(pixels.shape)}, expected uint8 [n, {expected}], n > 0"
            )
        try:
            return running.run_in_batches(self.runner, pixels, self.manifest.batch, self.feed)
        except (MorvitError, OSError, MemoryError):
            raise
        except Exception as error:  # runtimes raise types of their own
            raise TargetError(
                f"{self.runner.runtime or 'the runtime'} failed while it ran {self.folder}: {error}; the bundle was "
                "checked when it was opened, so look at memory, drivers and the runtime's version"
            ) from error

    def feed(self, pixels: Pixels) -> NDArray[Any]:
        """The graph's own input for these pixels: themselves, or normalised floats."""
        return pixels if self.manifest.input == "uint8" else normalise(pixels, self.manifest.preprocess)

    def logits(self, pixels: Pixels) -> NDArray[np.float32]:
        """float32 (n, classes); AnswerError if one is NaN or infinite, TargetError for a bundle of features."""
        if self.manifest.output != "logits":
            raise TargetError(
                f"{self.folder} returns {self.manifest.output}, not logits; export the checkpoint with output "
                "'logits'"
            )
        return self.answer(pixels)

    def answer(self, pixels: Pixels) -> NDArray[np.float32]:
        """The bundle's main output, float32: logits, features (n, dim) or tokens (n, N, dim).

        AnswerError if a number is NaN or infinite.
        """
        outputs = self.run(pixels)
        for row in range(len(pixels)):
            self.check_answer(outputs, row)
        return outputs[self.manifest.output]

    def bucket_of(self, outputs: Arrays, row: int) -> str:
        """Name of the bucket that ran an image; AnswerError for a number that is none."""
        buckets = self.manifest.plan.buckets
        number = int(outputs["bucket"][row]) if "bucket" in outputs else 0
        if not 0 <= number < len(buckets):
            raise AnswerError(
                f"got bucket {number} from {self._runtime}, expected 0 … {len(buckets) - 1}; export the bundle again"
            )
        return buckets[number].name

    def check_answer(self, outputs: Arrays, row: int) -> None:
        """AnswerError if an image's logits, or features, are not finite."""
        name = self.manifest.output
        where = f"{name} in bucket {self.bucket_of(outputs, row)!r}, run by {self._runtime}"
        check_finite(outputs[name][row], where, OVERFLOWING)

    @property
    def _runtime(self) -> str:
        return self.runner.runtime or f"target {self.manifest.target}"

    def guesses(self, logits: NDArray[np.float32], count: int = 5) -> list[Guess]:
        """The `count` most probable classes of one image's logits (classes,), best first."""
        return guesses_of(logits, self.manifest)[:count]


def guesses_of(logits: NDArray[np.float32], manifest: Manifest) -> list[Guess]:
    """All classes of one image's logits (classes,) with their probabilities, the most probable first."""
    probability = probabilities(logits, manifest.config.head_activation)
    labels = manifest.labels
    return [
        Guess(int(i), labels[i] if labels else str(i), float(probability[i]))
        for i in np.argsort(-logits, kind="stable")
    ]


def softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Along the last axis, in float64."""
    return probabilities(logits)


def warnings_here(manifest: Manifest) -> tuple[str, ...]:
    """Why a bundle's results on this machine may be worse than where it was exported."""
    untested = known_target(manifest.target).untested_here(manifest.versions)
    return (*kernel_warnings(manifest.lowering), *head_warnings(manifest.config), *untested)


def head_warnings(config: Config) -> tuple[str, ...]:
    """A sentence for a softmax of one logit, which is always 1; none for other heads."""
    if config.num_classes > 1 or config.head_activation != SOFTMAX:
        return ()
    return (
        "the head has one logit, and its softmax is 100 % for every image; if the checkpoint is a binary classifier, "
        'write "head_activation": "sigmoid" in its config.json and export it again',
    )


def kernel_warnings(lowering: Lowering | None, kernels: IntegerKernels | None = None) -> tuple[str, ...]:
    """A sentence where a bundle's int8 products saturate, none elsewhere; `kernels` are those of another machine."""
    if lowering is None or lowering.flavor != "cpu" or lowering.weight_bits == 7:
        return ()
    here = kernels or integer_kernels.kernels_here()
    if not here.saturating:
        return ()
    return (
        f"int8 products saturate on this processor ({here.instruction_set}, no VNNI) and the bundle has 8-bit "
        "weights, so its results can be much worse here than where it was exported. Export it on a machine like "
        "this one, for 7-bit weights, or in fp32. A program of your own can set the session option "
        "session.disable_quant_qdq to 1, at the speed of float",
    )
