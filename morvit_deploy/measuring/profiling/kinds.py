"""Kinds of nodes in a profile. Imports nothing."""

from __future__ import annotations

PRODUCTS, ATTENTION, MOVEMENT, REST = "products", "attention", "movement", "rest"
KINDS = {  # what they are, in a table's caption
    PRODUCTS: "matrix products with weights",
    ATTENTION: "products of activations, and softmax",
    MOVEMENT: "copies, gathers, casts, rounding to int8",
    REST: "normalization, activations, sums, ranking",
}
