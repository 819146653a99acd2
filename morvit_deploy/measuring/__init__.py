"""Latency, cold start and memory of bundles, each in a process of its own."""
