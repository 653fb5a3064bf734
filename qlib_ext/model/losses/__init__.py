"""From a day's predictions and labels to one number, lower is better."""
