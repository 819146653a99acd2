"""`morvit-deploy predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from morvit_deploy.cli.app import command
from morvit_deploy.cli.common import JsonOption, ThreadsOption, UpscaleOption, bundle_folder, emit, stages
from morvit_deploy.errors import ImageError, TargetError


@command("predict")
def predict(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="[BUNDLE] IMAGE", help="A bundle folder (default: the newest under build/) and images."
        ),
    ],
    logits: Annotated[bool, typer.Option("--logits", help="Print the logits too.")] = False,
    top: Annotated[int, typer.Option(min=1, help="Classes to show for each image.")] = 5,
    depth_map: Annotated[
        Path | None,
        typer.Option(
            "--depth-map",
            help="Folder for a picture of each image's token depths (bundle exported --with-depth).",
            show_default=False,
        ),
    ] = None,
    threads: ThreadsOption = None,
    upscale: UpscaleOption = False,
    as_json: JsonOption = False,
) -> None:
    """Classify images with a bundle; no PyTorch is loaded."""
    bundle, images = _split(paths)
    import numpy as np

    from morvit_deploy.exporters.registry import open_bundle
    from morvit_deploy.report import Report
    from morvit_deploy.views import prediction_table

    with stages("opening the bundle") as tell, open_bundle(bundle, threads=threads) as session:
        has_depth = any(port.name == "depth" for port in session.manifest.outputs)
        if depth_map is not None and not has_depth:
            raise TargetError(f"{bundle} answers no depth; export it again with --with-depth")
        pixels = np.stack([session.read(path, upscale=upscale) for path in images])
        tell(f"running {len(images)} images")
        outputs = session.run(pixels)
        answers: list[dict[str, Any]] = []
        for path, row in zip(images, outputs["logits"], strict=True):
            answer: dict[str, Any] = {
                "image": str(path),
                "bucket": session.manifest.plan.buckets[0].name,
                "top": [guess.__dict__ for guess in session.guesses(row, top)],
            }
            if logits:
                answer["logits"] = [float(value) for value in row]
            answers.append(answer)
        if depth_map is not None:
            tell("drawing depth maps")
            from morvit_deploy.depth_maps import draw_all

            for answer, picture in zip(
                answers,
                draw_all(depth_map, images, pixels, outputs["depth"], session.manifest.config.num_steps),
                strict=True,
            ):
                answer["depth_map"] = str(picture)
    emit(Report("Predictions", [prediction_table(answers, with_logits=logits)]), answers, as_json)


def _split(paths: list[Path]) -> tuple[Path, list[Path]]:
    """A first path that is a folder is the bundle."""
    bundle, images = (paths[0], paths[1:]) if paths[0].is_dir() else (None, paths)
    if not images:
        raise ImageError("no IMAGE given; name one or more image files")
    return bundle_folder(bundle), images
