"""From counts to a ladder of buckets."""
