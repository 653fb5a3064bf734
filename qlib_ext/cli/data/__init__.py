"""The commands of `qlib-ext data`."""
