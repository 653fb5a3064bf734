"""What weights are allowed, as data."""
