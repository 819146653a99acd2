"""What is on disk, and how it is opened and run. No torch."""
