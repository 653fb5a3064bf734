"""A run as one file, which anyone executes again and holds against what the run left."""
