"""Is adaptive depth faster on this device? Buckets against fixed and dense graphs."""
