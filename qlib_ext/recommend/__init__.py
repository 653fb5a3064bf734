"""The list of the day: what a trained run says of the newest day of a store, and what its strategy would do."""
