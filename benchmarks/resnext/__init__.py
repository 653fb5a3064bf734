"""The tables of the ResNeXt multi-task paper, and the ablations that it calls for."""
