"""What a model answers: how logits are read, how much of their accuracy is kept, and the agreement required."""
