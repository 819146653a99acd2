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

    def count(self, h: Tensor) -> int:
        """Number of tokens of h."""
        return h.shape[self.axis]

    def first(self, h: Tensor, n: int) -> Tensor:
        """Return the states of the first n tokens."""
        return h[..., :n, :]

    def beyond(self, h: Tensor, n: int) -> Tensor:
        """Return the states of all but the first n tokens."""
        return h[..., n:, :]

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

    axis = -1

    def first(self, h: Tensor, n: int) -> Tensor:
        return h if n == h.shape[-1] else h[..., :n]

    def beyond(self, h: Tensor, n: int) -> Tensor:
        return h[..., n:]

    def cls(self, h: Tensor) -> Tensor:
        return self.first(h, 1)

    def mean(self, h: Tensor) -> Tensor:
        return h.mean(dim=-1, keepdim=True)

    def constant(self, rows: Tensor) -> Tensor:
        return rows.T[None, :, None]

    def from_channels(self, x: Tensor) -> Tensor:
        return x[:, :, None]

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
