"""Rows of a comparison and how they are shown: tables, sentence and picture."""
