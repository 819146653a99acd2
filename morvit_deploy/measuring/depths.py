"""Depth maps of a few pictures for the page of a measurement, from a bundle that returns depths."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from morvit_deploy.bundle.images import open_images
from morvit_deploy.bundle.links import open_linked
from morvit_deploy.exporters.targets import find_target, open_session
from morvit_deploy.machine.extras import is_missing
from morvit_deploy.report import Picture

HERE = "cpu"  # the device of `bench` that is this machine
SAMPLES = 4  # pictures of a page
TITLE = "Depth maps of sample pictures"
CAPTION = "how many steps each token ran in the bundle; the histogram is over these pictures"


def depth_picture(bundle: Path, images: Path, *, upscale: bool = False, exif: bool = False) -> Picture | None:
    """Of the first pictures of a folder; None where the bundle returns no depth or does not run here, or without the
    extra that draws.
    """
    bundle, manifest = open_linked(bundle)
    config, outputs = manifest.config, {port.name for port in manifest.outputs}
    if HERE not in find_target(manifest.target).devices or "depth" not in outputs or is_missing("matplotlib"):
        return None
    with open_session(bundle) as session:
        pixels = open_images(images, config, limit=SAMPLES, upscale=upscale, exif=exif).all()
        depth = np.concatenate([session.run(one[None])["depth"] for one in pixels])
    from morvit_deploy.inspecting.depth_maps import overview_png

    content = overview_png(pixels, depth, config.num_steps)
    return Picture(TITLE, Path("depth.png"), CAPTION, content, page_only=True)
