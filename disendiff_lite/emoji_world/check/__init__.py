"""Judge the embedded model, and find its settings."""
