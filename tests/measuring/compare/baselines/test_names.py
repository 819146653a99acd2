"""Names of baselines: which there are, which is closest, and what is no file."""

from __future__ import annotations

from pathlib import Path

import pytest

from morvit_deploy.errors import ConfigError
from morvit_deploy.measuring.compare.baselines import names
from morvit_deploy.measuring.compare.baselines.names import OWN, Baseline, find_baselines, speed_models
from morvit_deploy.measuring.compare.baselines.published import METHODS, of_baseline, of_bundle, table2
from morvit_deploy.model.routings import ROUTINGS

TIMM = [*(name for name in table2() if name not in OWN), "repvit_m1_1"]


def found(*words: str | Path) -> list[str]:
    return [one.name for one in find_baselines(words, lambda: TIMM)]


def test_table2_is_every_method_of_the_paper_that_is_no_bundle() -> None:
    assert found("table2") == table2()
    assert len(table2()) == 14 and len([one for one in METHODS if one.source.startswith("MoR-ViT")]) == 13


def test_each_is_measured_once() -> None:
    assert found("resnet50", "table2", "resnet50") == ["resnet50", *(n for n in table2() if n != "resnet50")]


def test_the_closest_name_is_offered() -> None:
    with pytest.raises(ConfigError, match=r"got baseline 'resnet5', expected .*; did you mean 'resnet50'\?"):
        found("resnet5")
    with pytest.raises(ConfigError, match=r"did you mean 'tokenlearner'\?"):
        found("tokenlerner")
    with pytest.raises(ConfigError, match="small ones are efficientvit_m2"):
        found("xyz")


def test_a_file_of_weights_and_a_graph_must_be_there(tmp_path: Path) -> None:
    weights, graph = tmp_path / "w.pth", tmp_path / "g.onnx"
    with pytest.raises(ConfigError, match=r"w\.pth is no file; expected weights of resnet50"):
        found(f"resnet50={weights}")
    with pytest.raises(ConfigError, match=r"g\.onnx is no file; expected an ONNX graph"):
        found(graph)
    weights.touch(), graph.touch()
    both = find_baselines([f"resnet50={weights}", graph], lambda: TIMM)
    assert [(one.kind, one.weights, one.path) for one in both] == [
        ("timm", weights, None),
        ("file", None, graph),
    ]


def test_a_graph_needs_no_timm(tmp_path: Path) -> None:
    graph = tmp_path / "g.onnx"
    graph.touch()
    assert find_baselines([graph], lambda: pytest.fail("asked for the names of timm"))


def test_speed_models_come_with_the_source(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {*speed_models()} >= {*OWN}
    with pytest.raises(ConfigError, match="ats is a speed model, which has random weights; leave out =x"):
        monkeypatch.setattr(names, "_existing", lambda path, what: path)
        found("ats=x")
    monkeypatch.setattr(names, "BESIDE_THE_PACKAGE", Path("nowhere"))
    with pytest.raises(ConfigError, match="comes with the source and not with the installed package"):
        found("ats")


def test_published_figures_have_a_source_and_a_place() -> None:
    assert all(one.source for one in METHODS)
    places = [one.baseline or one.preset for one in METHODS]
    assert None not in places and len({*places}) == len(places)
    vit, dynamic = of_baseline("vit_base_patch16_224"), of_bundle("DynamicViT", None)
    assert vit is not None and (vit.top1_percent, vit.images_per_s) == (81.8, 900)
    assert dynamic is not None and dynamic.method == "DynamicViT"
    ours = of_bundle(None, "morvit_b16")
    assert ours is not None and ours.method == "MoR-ViT"
    assert of_bundle(None, None) is None
    methods = {one.method for one in METHODS}
    assert all(record.method in methods for record in ROUTINGS.values() if record.method is not None)


def test_presets_are_baselines_with_random_weights() -> None:
    assert find_baselines(["evit_s16"], lambda: TIMM) == [Baseline("evit_s16", "preset")]
    with pytest.raises(ConfigError, match="is a preset of `init`, which has random weights"):
        found(f"evit_s16={__file__}")
