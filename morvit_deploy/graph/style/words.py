"""The words by which users and manifests choose a static graph. No torch."""

from __future__ import annotations

from typing import Literal, get_args

Layout = Literal["bsd", "bc1s"]  # states in rows, (tokens, dim), or channels first, (1, dim, 1, tokens)
Select = Literal["topk", "onehot"]  # tokens by index, or by products with one-hot rows
Attention = Literal["manual", "fused"]  # products and a softmax, or one operator
LAYOUTS: tuple[Layout, ...] = get_args(Layout)
SELECTS: tuple[Select, ...] = get_args(Select)
