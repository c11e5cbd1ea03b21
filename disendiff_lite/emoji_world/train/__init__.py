"""Train the embedded model and its scorer."""
