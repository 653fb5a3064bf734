"""Data that come by themselves: vendors and archives asked for what a store does not have yet."""
