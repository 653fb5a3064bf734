"""Made markets."""
