"""The ground that everything stands on; it knows nothing of diffusion."""
