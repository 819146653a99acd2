"""Runs traced pieces on a folder of images and shows the values inside them, a few images at a time.

Each image goes through the stem and then through the trunk of its bucket, as in the bundle. Only its bucket is kept,
so that memory does not grow with the number of images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from morvit_deploy.agent.core.running import Arrays
from morvit_deploy.agent.run_ort import NO_INTEGER_KERNELS
from morvit_deploy.bundle.images import ImageFolder
from morvit_deploy.bundle.pixels import Pixels, normalise
from morvit_deploy.errors import CheckpointError, TargetError
from morvit_deploy.exporters.onnx.graphs.assembly import STEM, WHOLE, Pieces
from morvit_deploy.exporters.onnx.graphs.graphs import copy_of, element_types
from morvit_deploy.model.plan import Plan
from morvit_deploy.model.precision import Calibrated

ENOUGH = 16  # images behind a bucket's ranges; with fewer of its own, others are run in it too
AT_A_TIME = 8  # of a dynamic batch

FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)


@dataclass(frozen=True)
class Stream:
    """Images to calibrate with, as a bundle of this batch and input kind takes them."""

    folder: ImageFolder
    batch: int | str
    uint8: bool

    @property
    def step(self) -> int:
        """Images a run."""
        return AT_A_TIME if self.batch == "dynamic" else int(self.batch)


@dataclass
class Observer:
    """Pieces of one plan and the images to run them on."""

    pieces: Pieces
    plan: Plan
    stream: Stream
    served: dict[str, list[int]] = field(default_factory=dict)  # bucket to the images that it serves

    @property
    def folder(self) -> ImageFolder:
        """The images."""
        return self.stream.folder

    def images_of(self, part: str) -> list[int]:
        """Images that a part is run on: those it serves and, where there are fewer than ENOUGH, others."""
        everyone = list(range(len(self.folder)))
        if part in (WHOLE, STEM):
            return everyone
        own = self.served[part]
        others = [image for image in everyone if image not in own] if len(own) < ENOUGH else []
        return sorted(own + others[: ENOUGH - len(own)])

    def counted(self) -> dict[str, Calibrated]:
        """How many images each part saw, and how many of them another bucket serves."""
        return {
            (self.plan.buckets[0].name if part == WHOLE else part): Calibrated(
                images=len(images := self.images_of(part)),
                forced=len(set(images) - set(self.served[part])) if part in self.served else 0,
            )
            for part in self.pieces.parts
        }

    def choose(self, see: Callable[[Pixels], None] = lambda pixels: None) -> None:
        """Find each image's bucket. `see` gets every image's pixels once."""
        chosen: list[int] = []
        stem = None if WHOLE in self.pieces.parts else self._session(STEM, ["bucket"])
        for images, pixels in self._batches(range(len(self.folder))):
            see(pixels[: len(images)])
            if stem is not None:
                chosen += self._run(stem, {"image": self._fed(pixels)})["bucket"][: len(images)].tolist()
        names = [bucket.name for bucket in self.plan.buckets]
        self.served = {
            name: [image for image, number in enumerate(chosen) if number == place]
            for place, name in enumerate(names)
        }
        for name in names[:-1] if stem is not None and self.plan.mode == "threshold" else ():
            again = [i for i, found in self._results(name, self.served[name]) if found["overflow"].any()]
            self.served[names[-1]] = sorted({*self.served[names[-1]], *again})

    def visit(
        self, watched: Mapping[str, Sequence[str]], see: Callable[[str, str, NDArray[Any]], None]
    ) -> None:
        """Call `see` with part, name and value for everything watched, part by part, on every image of the part.

        CheckpointError naming the node when a value is NaN or infinite.
        """
        for part, names in watched.items():
            if not names:
                continue
            for numbers, feeds, values in self._runs(part, list(names), self.images_of(part)):
                for name, value in values.items():
                    if not np.isfinite(value).all():
                        raise self._broken(part, feeds, numbers)
                    see(part, name, value)

    def first_feeds(self) -> Arrays:
        """One batch, to time a run with."""
        _, pixels = next(self._batches(range(min(self.stream.step, len(self.folder)))))
        return {"image": self._fed(pixels)}

    def few(self, most: int) -> Observer:
        """The same with at most `most` images, evenly spaced."""
        if len(self.folder) <= most:
            return self
        chosen = np.linspace(0, len(self.folder) - 1, most).astype(int).tolist()
        entries = tuple(self.folder.entries[image] for image in chosen)
        places = {image: place for place, image in enumerate(chosen)}
        served = {
            bucket: [places[image] for image in images if image in places]
            for bucket, images in self.served.items()
        }
        stream = replace(self.stream, folder=replace(self.folder, entries=entries))
        return replace(self, stream=stream, served=served)

    def logits(self) -> NDArray[Any]:
        """(images, classes), every image from the bucket that serves it, as `choose` found them."""
        rows: dict[int, NDArray[Any]] = {}
        for part in self.pieces.parts:
            if part != STEM:
                images = self.served[part] if part in self.served else range(len(self.folder))
                rows |= {image: found["logits"][0] for image, found in self._results(part, images)}
        return np.stack([rows[image] for image in range(len(self.folder))])

    def _results(self, part: str, images: Sequence[int]) -> Iterator[tuple[int, Arrays]]:
        """Results of single images, each with a batch axis of one."""
        names = [value.name for value in self.pieces.parts[part].graph.output]
        for numbers, _, found in self._runs(part, names, images):
            for row, image in enumerate(numbers):
                yield image, {name: value[row : row + 1] for name, value in found.items()}

    def _runs(
        self, part: str, names: list[str], images: Sequence[int]
    ) -> Iterator[tuple[list[int], Arrays, Arrays]]:
        """Numbers of some images, the part's inputs for them (a trunk's come from the stem), and its values."""
        session = self._session(part, names)
        stem = None if part in (WHOLE, STEM) else self._session(STEM, list(self.pieces.carried))
        for numbers, pixels in self._batches(images):
            feeds = {"image": self._fed(pixels)}
            if stem is not None:
                feeds = self._run(stem, feeds)
            yield numbers, feeds, self._run(session, feeds)

    def _batches(self, images: Sequence[int]) -> Iterator[tuple[list[int], Pixels]]:
        """Numbers of some images, and their pixels filled up to the batch."""
        step = self.stream.step
        for start in range(0, len(images), step):
            numbers = list(images[start : start + step])
            filled = numbers + numbers[-1:] * (step - len(numbers))
            yield numbers, np.stack([self.folder.read(self.folder.entries[image]) for image in filled])

    def _fed(self, pixels: Pixels) -> NDArray[Any]:
        return pixels if self.stream.uint8 else normalise(pixels, self.folder.config.preprocess)

    def _session(self, part: str, names: list[str]) -> ort.InferenceSession:
        """A session that returns these values."""
        model = copy_of(self.pieces.parts[part])
        del model.graph.output[:]
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
        return open_session(model, integers=False)

    def _run(self, session: ort.InferenceSession, feeds: Arrays) -> Arrays:
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(names, feeds), strict=True))

    def _broken(self, part: str, feeds: Arrays, numbers: Sequence[int]) -> CheckpointError:
        node = first_not_finite(self.pieces.parts[part], feeds)
        files = ", ".join(self.folder.entries[number].path.name for number in numbers)
        where = f"bucket {part}: " if part in self.served and self.plan.adaptive else ""
        return CheckpointError(
            f"{where}node {node} returns NaN or Inf for {files}, so it has no range to quantize over; the "
            "checkpoint's weights are damaged or too large"
        )


def open_session(model: onnx.ModelProto, *, integers: bool = True) -> ort.InferenceSession:
    """A graph in memory on the CPU; its threads sleep between runs, so that several sessions share the cores.

    Without `integers`, a Q/DQ graph computes float products of its rounded values, whose sums cannot saturate.
    Raises TargetError with the runtime's message, which names the operator, when it cannot load the graph.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.add_session_config_entry(NO_INTEGER_KERNELS, "0" if integers else "1")
    try:
        return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises types of its own
        raise TargetError(
            f"ONNX Runtime {ort.__version__} cannot load the graph (opset {model.opset_import[0].version}): {error}"
        ) from error


def first_not_finite(model: onnx.ModelProto, feeds: Arrays) -> str:
    """Name and operator of the first node that returns NaN or Inf for finite inputs.

    A node that reads a mask's constant −∞ does not count.
    """
    every = copy_of(model)
    kinds = element_types(onnx.shape_inference.infer_shapes(every).graph)
    names = [name for node in model.graph.node for name in node.output if kinds.get(name) in FLOATS]
    del every.graph.output[:]
    every.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    values = dict(zip(names, open_session(every).run(names, feeds), strict=True))
    held = {i.name: onnx.numpy_helper.to_array(i) for i in model.graph.initializer if i.data_type in FLOATS}
    bad = {name for name, value in (held | values).items() if not np.isfinite(value).all()}
    for node in model.graph.node:
        made = bad.intersection(node.output)
        if made and not bad.intersection(node.input):
            return f"{node.name!r} ({node.op_type}, value {min(made)!r})"
    return "(not found when run again)"
