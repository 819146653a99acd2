"""The shards of each round on a Ray cluster, which schedules them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from morvit_deploy.calibration.routing.checks import problems_of
from morvit_deploy.calibration.routing.gathering import Task, gather
from morvit_deploy.calibration.routing.statistics import Shard, Statistics, join
from morvit_deploy.errors import PlanError, TargetError, listed
from morvit_deploy.machine.extras import names_extra
from morvit_deploy.model.config import load_config

LOCAL = "local"


class Cluster:
    """A connection to Ray, as a context manager. `address` is Ray's, or `local` for a cluster on this machine.

    `shards` is the number of parts, by default one per CPU. An existing connection of the process is used and left
    open.
    """

    def __init__(self, address: str, shards: int | None = None) -> None:
        with names_extra("--ray"):
            import ray
        self._ray, self._own = ray, not ray.is_initialized()
        if self._own:
            _connect(ray, address)
        self.shards = shards or max(1, int(ray.cluster_resources().get("CPU", 1)))
        self._gather = ray.remote(num_cpus=1)(gather)

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        if self._own:
            self._ray.shutdown()

    def gather(self, task: Task, progress: Callable[[float], None] = lambda share: None) -> Statistics:
        """Run a round on all shards. Every node must have access to the checkpoint and the images."""
        whole = join(self._parts(task, progress))
        if problems := problems_of(whole, load_config(task.source.checkpoint)):
            raise PlanError(
                f"--ray: the statistics of round {task.round + 1} contradict each other; install the same version of "
                f"this package on all nodes:\n{listed(problems)}"
            )
        return whole

    def _parts(self, task: Task, progress: Callable[[float], None]) -> Iterator[Statistics]:
        """Yield the statistics of shards as they finish."""
        shards = [Shard(number, self.shards) for number in range(1, self.shards + 1)]
        pending = [self._gather.remote(replace(task, shard=shard)) for shard in shards]
        while pending:
            ready, pending = self._ray.wait(pending)
            try:
                part = self._ray.get(ready[0])
            except self._ray.exceptions.RayTaskError as error:
                raise error.cause from None  # an error of this package
            except self._ray.exceptions.RayError as error:
                raise TargetError(f"--ray: a shard was lost: {error}; run calibrate again") from None
            yield part
            progress(1 - len(pending) / self.shards)


def _connect(ray: Any, address: str) -> None:
    if address == LOCAL:  # no dashboard and no usage statistics
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    options = {"include_dashboard": False} if address == LOCAL else {}
    try:
        ray.init(address, log_to_driver=False, configure_logging=False, **options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise TargetError(f"--ray: cannot connect to {address}: {error}") from None
