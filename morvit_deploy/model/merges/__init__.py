"""From a plain ViT to one whose tokens merge: how many at each layer, and the same weights with these merges."""
