"""Images and the statistics gathered from them."""
