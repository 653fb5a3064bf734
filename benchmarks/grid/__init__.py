"""Many runs of one workflow: a grid of variants, run side by side, and what came of them."""
