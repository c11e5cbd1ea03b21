"""A small diffusion model of our own, on a world of emoji scenes whose true masks are known."""
