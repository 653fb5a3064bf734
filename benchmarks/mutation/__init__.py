"""How many small faults, planted in the arithmetic, the tests notice."""
