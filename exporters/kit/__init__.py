"""MoRViTKit: the Swift package beside a model that an app loads, and the description of the model."""
