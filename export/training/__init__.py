"""Training of the built-in model: data, losses, the three stages, checkpoints in the released layout."""
