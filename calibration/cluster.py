"""The shards of each round on a Ray cluster, for images beyond one machine. Ray schedules; nothing of ours does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from morvit_deploy.calibration.gathering import Task, gather
from morvit_deploy.calibration.statistics import Shard, Statistics, join
from morvit_deploy.errors import TargetError

LOCAL = "local"


class Cluster:
    """A connection to Ray; a context manager. `address` is Ray's own, or `local` for a cluster of this machine."""

    def __init__(self, address: str, shards: int | None) -> None:
        try:
            import ray
        except ImportError:
            raise TargetError("--ray needs Ray; pip install 'morvit-deploy[ray]'") from None
        self._ray = ray
        try:
            ray.init(None if address == LOCAL else address, log_to_driver=False, configure_logging=False)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise TargetError(f"--ray {address}: no such cluster: {error}") from None
        self.shards = shards or max(1, int(ray.cluster_resources().get("CPU", 1)))
        self._gather = ray.remote(num_cpus=1)(gather)

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self._ray.shutdown()

    def gather(self, task: Task, progress: Callable[[float], None]) -> Statistics:
        """One round over all shards. The checkpoint and the images must be where every node sees them."""
        pending = [
            self._gather.remote(replace(task, shard=Shard(number, self.shards)))
            for number in range(1, self.shards + 1)
        ]
        parts = []
        while pending:
            ready, pending = self._ray.wait(pending)
            try:
                parts += self._ray.get(ready)
            except self._ray.exceptions.RayTaskError as error:
                raise error.cause from None
            progress(len(parts) / self.shards)
        return join(sorted(parts, key=lambda part: part.shards[0].number))
