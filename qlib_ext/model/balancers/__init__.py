"""From the losses of K tasks to the gradient of the shared parameters."""
