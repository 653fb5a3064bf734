"""What a store holds beside bars, and since when it was known."""
