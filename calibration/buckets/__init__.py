"""Fitting of buckets to token counts."""
