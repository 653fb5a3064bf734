"""From scores to orders."""

from qlib_ext.terminal import quiet_imports

with quiet_imports():  # Qlib's strategies bring gym, which has something to say
    import qlib.contrib.strategy  # noqa: F401
