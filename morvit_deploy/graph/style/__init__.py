"""The styles of a static graph: its selection, stem, blocks, routers and classifier."""
