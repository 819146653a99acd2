"""What several commands share: options, terminal, source and SSH settings."""
