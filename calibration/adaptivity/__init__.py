"""Can adaptive depth pay? Measurements of accuracy and of token counts, and what they lead to. No torch."""
