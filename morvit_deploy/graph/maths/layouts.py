"""The two layouts of a static graph: on which axes of a tensor tokens, channels and the tokens' numbers are.

Each token has a state, a row or column of channels, and numbers: a score, a depth, a position. All differences
between the layouts outside of blocks and one-hot selection are here.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class RowLayout:
    """`bsd`: states (…, tokens, dim), numbers (…, tokens); the leading axis is the batch, or absent."""

    axis = -2  # of the tokens, in a state

    def count(self, h: Tensor) -> int:
        """Tokens of the states h."""
        return h.shape[self.axis]

    def first(self, h: Tensor, n: int) -> Tensor:
        """The states of the first n tokens."""
        return h[..., :n, :]

    def beyond(self, h: Tensor, n: int) -> Tensor:
        """The states of all but the first n tokens."""
        return h[..., n:, :]

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """States of several groups of tokens as one tensor, in this order."""
        return torch.cat(list(parts), dim=self.axis)

    def cls(self, h: Tensor) -> Tensor:
        """The first token's state, in the shape that the classifier takes."""
        return h[..., 0, :]

    def constant(self, rows: Tensor) -> Tensor:
        """States (n, dim), or (batch, n, dim), in this layout."""
        return rows

    def from_channels(self, x: Tensor) -> Tensor:
        """States of one image from channels (1, dim, n)."""
        return x[0].T

    def spread(self, numbers: Tensor) -> Tensor:
        """Numbers to factors of states, the same for each channel."""
        return numbers[..., None]

    def scores(self, z: Tensor) -> Tensor:
        """Router logits of every token as numbers."""
        return z[..., 0]

    def patch_scores(self, z: Tensor) -> Tensor:
        """Router logits of all tokens but CLS as numbers."""
        return z[..., 1:, 0]

    def with_cls_score(self, z: Tensor, scores: Tensor) -> Tensor:
        """Router logits of CLS, from z, and of the tokens that have `scores`."""
        return torch.cat([z[..., :1, 0], scores], dim=-1)[..., None]

    def patch_depths(self, z: Tensor) -> Tensor:
        """The most likely depth of each patch token, from 1, as numbers; on a tie the lowest."""
        return z[..., 1:, :].argmax(dim=-1) + 1

    def places(self, h: Tensor, n: int) -> Tensor:
        """Numbers 0 … n − 1 for each image of the states h."""
        return torch.arange(n).expand(*h.shape[:-2], -1)

    def result(self, value: Tensor) -> Tensor:
        """One image's logits, numbers, or one number, with a batch axis: (1, …)."""
        return value[None]

    def vector(self, numbers: Tensor) -> Tensor:
        """Numbers as (…, tokens)."""
        return numbers

    def keys(self, numbers: Tensor) -> Tensor:
        """Numbers as terms of attention logits, one for each key."""
        return numbers[..., None, None, :]


class ChannelLayout(RowLayout):
    """`bc1s`: states (1, dim, 1, tokens), numbers (1, 1, 1, tokens); one image."""

    axis = -1

    def first(self, h: Tensor, n: int) -> Tensor:
        return h if n == h.shape[-1] else h[..., :n]

    def beyond(self, h: Tensor, n: int) -> Tensor:
        return h[..., n:]

    def cls(self, h: Tensor) -> Tensor:
        return self.first(h, 1)

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

    def vector(self, numbers: Tensor) -> Tensor:
        return numbers.flatten()

    def keys(self, numbers: Tensor) -> Tensor:
        return numbers.transpose(1, 3)  # keys stand on the channel axis


def mixed(columns: Tensor, weights: Tensor) -> Tensor:
    """Columns (1, dim, 1, n) mixed by weights (1, n, 1, k): (1, dim, 1, k). One operator in Core ML."""
    return torch.einsum("nchw,nwhu->nchu", columns, weights)


BSD, BC1S = RowLayout(), ChannelLayout()
