"""Reference walks of further routings: how an image's tokens go through the layers, in plain loops."""
