"""How many threads PyTorch should use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from morvit_deploy.model.config import Config
from morvit_deploy.model.macs import dense_macs

_SMALL_MACS = 1e9  # of an image: below, threads wait for each other longer than they compute


@contextmanager
def fitting_threads(config: Config) -> Iterator[None]:
    """One thread for a small model, as many as before for a large one; restored afterwards."""
    with using_threads(1 if dense_macs(config) < _SMALL_MACS else torch.get_num_threads()):
        yield


@contextmanager
def using_threads(number: int) -> Iterator[None]:
    """So many of PyTorch's threads while the block runs."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
