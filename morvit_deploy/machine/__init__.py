"""This machine: processor, cores, memory, libraries. No torch."""
