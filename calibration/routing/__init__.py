"""Statistics of routing on images: router logits, token counts, thresholds."""
