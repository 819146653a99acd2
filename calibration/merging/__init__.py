"""How many tokens of a plain ViT may merge at each layer, by what that changes on images."""
