"""Orders on a simulated exchange: simulation, exchanges, price limits, positions."""
