"""What the demo expects in `examples/`; apart, so that looking for it loads nothing."""

MODELS = ("digits-expert", "digits-token")
IMAGES = "digits-test"
