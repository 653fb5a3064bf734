"""From scores to orders."""
