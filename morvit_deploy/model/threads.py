"""How many threads PyTorch should use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from morvit_deploy.model.config import Config
from morvit_deploy.model.macs import dense_macs

_SMALL_MACS = 1e9  # per image: below this, synchronising threads takes longer than computing


def is_small(config: Config) -> bool:
    """Would threads wait for each other longer than they compute?"""
    return dense_macs(config) < _SMALL_MACS


@contextmanager
def fitting_threads(config: Config) -> Iterator[None]:
    """Use one thread for a small model and the current number for a large one, inside the `with` block."""
    with using_threads(1 if is_small(config) else torch.get_num_threads()):
        yield


@contextmanager
def using_threads(number: int) -> Iterator[None]:
    """Set PyTorch's number of threads inside the `with` block."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
