"""Does anything that a workflow calls known at t follow from what came after t? By experiment, on changed markets."""
