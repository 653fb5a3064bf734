"""What a dataset adds to its panels from a store beside bars: concepts, market values, macro figures, the market's status."""
