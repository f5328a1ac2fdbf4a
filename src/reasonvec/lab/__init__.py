"""The lab: a toy world, tiny models and the demo that shows the whole method on a laptop's CPU."""
