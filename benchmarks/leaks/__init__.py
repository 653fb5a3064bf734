"""A court for leaks: the look-ahead audit on pipelines that the public uses, and what common leaks are worth."""
