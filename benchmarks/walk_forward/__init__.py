"""Walking forward on a real market: kinds of model, seeds, warm and cold starts, and what all of them say together."""
