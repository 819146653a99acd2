"""The supported families, a file for each training code, and those that are detected but not supported."""
