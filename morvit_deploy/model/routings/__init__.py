"""One record per routing: other code asks the record and never compares the name. No torch."""
