"""The shards of each round on a local Ray, which is started once. Plans are compared byte by byte."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from calibration_setup import break_picture, save_model, save_pictures

from morvit_deploy.calibration.routing.cluster import Cluster
from morvit_deploy.calibration.routing.gathering import UNIT
from morvit_deploy.errors import ImageError, TargetError
from morvit_deploy.planning.rounds import calibrate

WISH: dict[str, Any] = {"buckets": 2}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    pytest.importorskip("ray")
    with Cluster("local", shards=2) as connected:
        yield connected


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("cluster") / "model")


@pytest.mark.usefixtures("cluster")
def test_the_plan_is_that_of_one_pass(model: Path, tmp_path: Path) -> None:
    """Two units of pictures in three parts: one part has none."""
    images = save_pictures(tmp_path / "images", UNIT + 6)
    name, told = break_picture(images, 3), list[float]()
    found = calibrate(model, images, **WISH, max_bad=1, ray="local", shards=3, progress=told.append)
    alone = calibrate(model, images, **WISH, max_bad=1)
    assert found.plan.to_json() == alone.plan.to_json()
    assert found.as_dict() == alone.as_dict()
    assert [bad[0] for bad in found.bad] == [name]
    assert len(told) == 4 * 3 and told[:3] == pytest.approx([1 / 3, 2 / 3, 1.0])


@pytest.mark.usefixtures("cluster")
def test_what_a_shard_refuses_is_the_message(model: Path, tmp_path: Path) -> None:
    images = save_pictures(tmp_path / "images", 3)
    break_picture(images, 1)
    with pytest.raises(ImageError, match=r"^unreadable images: 1 so far, --max-bad allows 0"):
        calibrate(model, images, **WISH, ray="local", shards=1)


def test_a_connection_that_is_there_is_left_open(cluster: Cluster) -> None:
    import ray

    with Cluster("local") as second:
        assert second.shards >= 1
    assert ray.is_initialized()
    assert cluster.shards == 2


# --- without a cluster


def fake_ray(**given: Any) -> Any:
    return SimpleNamespace(is_initialized=lambda: False, **given)


def test_without_ray_the_install_line_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(
        TargetError, match=r'--ray requires ray, .*; run `pip install "morvit-deploy\[ray\]"`'
    ):
        Cluster("local")


def test_no_such_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(address: str, **_: Any) -> None:
        raise ConnectionError(f"nobody at {address}")

    monkeypatch.setitem(sys.modules, "ray", fake_ray(init=init))
    with pytest.raises(TargetError, match=r"--ray: cannot connect to 10.0.0.1:6379: nobody at 10.0.0.1:6379"):
        Cluster("10.0.0.1:6379")


def test_a_lost_shard(monkeypatch: pytest.MonkeyPatch, model: Path, tmp_path: Path) -> None:
    """A machine that died is not a fault of the input."""

    class RayError(Exception):
        pass

    class RayTaskError(RayError):
        pass

    def get(_: Any) -> None:
        raise RayError("the node died")

    closed: list[bool] = []
    ray = fake_ray(
        init=lambda address, **_: None, cluster_resources=lambda: {"CPU": 2.0}, get=get,
        remote=lambda **_: lambda function: SimpleNamespace(remote=lambda task: task),
        wait=lambda pending: (pending[:1], pending[1:]), shutdown=lambda: closed.append(True),
        exceptions=SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError),
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "ray", ray)
    with pytest.raises(TargetError, match=r"--ray: a shard was lost: the node died; run calibrate again"):
        calibrate(model, save_pictures(tmp_path / "images", 3), ray="auto")
    assert closed == [True]
