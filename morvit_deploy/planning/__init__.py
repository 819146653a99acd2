"""From checkpoint and images to a plan."""
