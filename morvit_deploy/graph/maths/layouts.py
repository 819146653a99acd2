"""The two layouts of a static graph: the axes of tokens and channels.

Each token has a state, which is a row or column of channels, and scalars: a score, a depth, a position. Methods call
tensors of these scalars "numbers". Blocks and one-hot selection have layout-specific code of their own.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class RowLayout:
    """`bsd`: states (…, tokens, dim), numbers (…, tokens), with an optional leading batch axis."""

    axis = -2  # the token axis of states
    channels = -1  # their channel axis

    def count(self, h: Tensor) -> int:
        """Number of tokens of h."""
        return h.shape[self.axis]

    def first(self, h: Tensor, n: int) -> Tensor:
        """Return the states of the first n tokens."""
        return h[..., :n, :]

    def beyond(self, h: Tensor, n: int) -> Tensor:
        """Return the states of all but the first n tokens."""
        return h[..., n:, :]

    def every_second(self, h: Tensor, start: int) -> Tensor:
        """Return the states of the tokens start, start + 2, …"""
        return h[..., start::2, :]

    def best_partners(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """Return the highest product of each token of a with one of b, as numbers, and the position of that one.

        a and b are states of two groups of tokens.
        """
        best, partner = (a @ b.transpose(-2, -1)).max(dim=-1)
        return best, partner

    def as_rows(self, numbers: Tensor) -> Tensor:
        """Return numbers as the rows of a matrix (…, numbers, 1), which `combine` takes."""
        return numbers[..., None]

    def as_columns(self, numbers: Tensor) -> Tensor:
        """Return numbers as the columns of a matrix (…, 1, numbers), which `combine` takes."""
        return numbers[..., None, :]

    def over_rows(self, matrix: Tensor) -> Tensor:
        """Sum the rows of a matrix: a number for each column."""
        return matrix.sum(dim=-2)

    def combine(self, h: Tensor, matrix: Tensor) -> Tensor:
        """Return for each column of a matrix (…, tokens of h, columns) the sum of the states of h weighted by it.

        One token is scaled, without a product.
        """
        weights = matrix.transpose(-2, -1)
        return weights * h if self.count(h) == 1 else weights @ h

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """Concatenate the states of several groups of tokens."""
        return torch.cat(list(parts), dim=self.axis)

    def cls(self, h: Tensor) -> Tensor:
        """Return the first token's state, in the shape that the classifier takes."""
        return h[..., 0, :]

    def mean(self, h: Tensor) -> Tensor:
        """Return the mean state of all tokens of h, in the shape that the classifier takes."""
        return h.mean(dim=-2)

    def constant(self, rows: Tensor) -> Tensor:
        """Convert states (n, dim) or (batch, n, dim) to this layout."""
        return rows

    def from_channels(self, x: Tensor) -> Tensor:
        """Convert one image's states from (1, dim, n) to this layout."""
        return x[0].T

    def weighted(self, h: Tensor, numbers: Tensor) -> Tensor:
        """Return the sum of h's states, each times its number, as one token's state."""
        if self.count(h) == 1:
            return h * self.spread(numbers)
        return self._products(h, numbers)

    def _products(self, h: Tensor, numbers: Tensor) -> Tensor:
        return numbers[..., None, :] @ h

    def spread(self, numbers: Tensor) -> Tensor:
        """Broadcast numbers over the channels of states."""
        return numbers[..., None]

    def scores(self, z: Tensor) -> Tensor:
        """Return the router logits of all tokens as numbers."""
        return z[..., 0]

    def patch_scores(self, z: Tensor) -> Tensor:
        """Return the router logits of all tokens but CLS as numbers."""
        return z[..., 1:, 0]

    def with_cls_score(self, z: Tensor, scores: Tensor) -> Tensor:
        """Return router logits: that of CLS from z, followed by `scores`."""
        return torch.cat([z[..., :1, :], scores[..., None]], dim=-2)

    def patch_depths(self, z: Tensor) -> Tensor:
        """Return the most likely depth of each patch token, from 1, as numbers; on a tie the lowest."""
        return z[..., 1:, :].argmax(dim=-1) + 1

    def places(self, h: Tensor, n: int) -> Tensor:
        """Return the numbers 0 … n − 1 for each image of h."""
        return torch.arange(n).expand(*h.shape[:-2], -1)

    def result(self, value: Tensor) -> Tensor:
        """Add a batch axis to one image's logits, numbers or scalar: (1, …)."""
        return value[None]

    def rows(self, h: Tensor) -> Tensor:
        """Convert one image's states to (1, tokens, dim)."""
        return h[None]

    def vector(self, numbers: Tensor) -> Tensor:
        """Reshape numbers to (…, tokens)."""
        return numbers

    def keys(self, numbers: Tensor) -> Tensor:
        """Reshape numbers, one for each key, so that they add to attention logits."""
        return numbers[..., None, None, :]


class ChannelLayout(RowLayout):
    """`bc1s`, for one image: states (1, dim, 1, tokens), numbers (1, 1, 1, tokens)."""

    axis, channels = -1, 1

    def first(self, h: Tensor, n: int) -> Tensor:
        return h if n == h.shape[-1] else h[..., :n]

    def beyond(self, h: Tensor, n: int) -> Tensor:
        return h[..., n:]

    def every_second(self, h: Tensor, start: int) -> Tensor:
        return h[..., start::2]

    def best_partners(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        products = mixed(b.transpose(1, 3), a)  # (1, tokens of b, 1, tokens of a)
        best, partner = products.max(dim=1, keepdim=True)
        return best, partner

    def as_rows(self, numbers: Tensor) -> Tensor:
        return numbers.transpose(1, 3)

    def as_columns(self, numbers: Tensor) -> Tensor:
        return numbers

    def over_rows(self, matrix: Tensor) -> Tensor:
        return matrix.sum(dim=1, keepdim=True)

    def combine(self, h: Tensor, matrix: Tensor) -> Tensor:
        return h * matrix if self.count(h) == 1 else mixed(h, matrix)

    def cls(self, h: Tensor) -> Tensor:
        return self.first(h, 1)

    def mean(self, h: Tensor) -> Tensor:
        return h.mean(dim=-1, keepdim=True)

    def constant(self, rows: Tensor) -> Tensor:
        return rows.T[None, :, None]

    def from_channels(self, x: Tensor) -> Tensor:
        return x[:, :, None]

    def _products(self, h: Tensor, numbers: Tensor) -> Tensor:
        return mixed(h, numbers.transpose(1, 3))

    def spread(self, numbers: Tensor) -> Tensor:
        return numbers

    def scores(self, z: Tensor) -> Tensor:
        return z

    def patch_scores(self, z: Tensor) -> Tensor:
        return z[..., 1:]

    def with_cls_score(self, z: Tensor, scores: Tensor) -> Tensor:
        return torch.cat([z[..., :1], scores], dim=-1)

    def patch_depths(self, z: Tensor) -> Tensor:
        return z[..., 1:].argmax(dim=1, keepdim=True) + 1

    def places(self, h: Tensor, n: int) -> Tensor:
        return torch.arange(n)[None, None, None]

    def result(self, value: Tensor) -> Tensor:
        return value.flatten(1) if value.ndim == 4 else value.flatten()

    def rows(self, h: Tensor) -> Tensor:
        return h[:, :, 0].transpose(1, 2)

    def vector(self, numbers: Tensor) -> Tensor:
        return numbers.flatten()

    def keys(self, numbers: Tensor) -> Tensor:
        return numbers.transpose(1, 3)  # keys are on the channel axis


def mixed(columns: Tensor, weights: Tensor) -> Tensor:
    """Multiply columns (1, dim, 1, n) by weights (1, n, 1, k) to (1, dim, 1, k), as one operator in Core ML."""
    return torch.einsum("nchw,nwhu->nchu", columns, weights)


BSD, BC1S = RowLayout(), ChannelLayout()
