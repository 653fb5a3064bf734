"""What stocks are exposed to, as of each close."""
