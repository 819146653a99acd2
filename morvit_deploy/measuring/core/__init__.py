"""The measuring loop, its samples and conditions, whatever the device."""
