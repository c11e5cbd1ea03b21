"""Draw the world: designs, scenes, references, and probes."""
