"""New days for a store that is there."""
