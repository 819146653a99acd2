"""How many threads PyTorch should use for the reference."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from morvit_deploy.config import Config
from morvit_deploy.macs import dense_macs

_SMALL_MACS = 1e9  # of an image: below, threads wait for each other longer than they compute


@contextmanager
def fitting_threads(config: Config) -> Iterator[None]:
    """One thread for a small model, as many as before for a large one; restored afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(1 if dense_macs(config) < _SMALL_MACS else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
