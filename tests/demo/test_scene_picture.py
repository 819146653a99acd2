"""The picture of the scenes, from a constructed run."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from scene_runs import OBJECTS, scenes_run

from morvit_deploy.demo.scene_picture import SHOWN, draw_scenes, shown_scenes

WIDEST = 1400  # pixels


@pytest.mark.parametrize("timed", [True, False])
def test_it_is_a_picture_of_a_page_s_width(timed: bool) -> None:
    picture = Image.open(io.BytesIO(draw_scenes(scenes_run(timed=timed))))
    assert 1000 <= picture.width <= WIDEST and picture.height < 1.4 * picture.width


def test_scenes_go_from_few_digits_to_many_and_are_typical() -> None:
    scenes = scenes_run().scenes
    first, second = shown_scenes(scenes)
    assert (OBJECTS[first], OBJECTS[second]) == (1, 2)
    for i in (first, second):
        assert scenes.found[i] == scenes.labels[i] and not scenes.overflow[i]
    nine = replace(scenes, objects=np.arange(len(OBJECTS)) % 9 + 1)
    shown = nine.objects[shown_scenes(nine)].tolist()
    assert shown == [1, 3, 5, 7, 9] and len(shown) == SHOWN


def test_a_number_that_is_never_right_is_shown_all_the_same() -> None:
    scenes = scenes_run().scenes
    wrong = replace(scenes, found=scenes.labels + 1)
    assert OBJECTS[shown_scenes(wrong)].tolist() == [1, 2]
