"""Every step on the trained examples: what `morvit-deploy demo` runs and shows."""
