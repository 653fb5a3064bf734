"""The tables and figures of the MiM-StocR paper, made again on any store."""
