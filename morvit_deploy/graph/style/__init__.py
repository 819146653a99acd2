"""How a static graph is laid out: layout, selection, blocks, ends."""
