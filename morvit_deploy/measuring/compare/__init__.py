"""Several models in one table: bundles beside other architectures, on the same runtime in the same run."""
