"""What the routers do on images: scores, counts, thresholds."""
