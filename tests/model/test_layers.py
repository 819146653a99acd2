"""The callables that reference and static graph share, against formulas written here."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from morvit_deploy.model.layers import ACTIVATIONS

Z = np.linspace(-6, 6, 61)
FORMULAS = {
    "gelu": Z * (1 + np.array([math.erf(z / math.sqrt(2)) for z in Z])) / 2,
    "gelu_tanh": Z * (1 + np.tanh(math.sqrt(2 / math.pi) * (Z + 0.044715 * Z**3))) / 2,
    "relu": np.where(Z > 0, Z, 0.0),
}


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_an_activation_is_its_formula(name: str) -> None:
    found = ACTIVATIONS[name](torch.from_numpy(Z)).numpy()
    np.testing.assert_allclose(found, FORMULAS[name], rtol=1e-12, atol=1e-14)
