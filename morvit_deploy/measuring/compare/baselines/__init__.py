"""Other architectures: their names, how they are built and exported, what papers say of them."""
