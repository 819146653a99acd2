"""The source's own outputs: images and the logits that the user's model returned, to check the reading against."""
