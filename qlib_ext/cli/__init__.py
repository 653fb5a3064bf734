"""The one command line, `qlib-ext`: a module a command."""
