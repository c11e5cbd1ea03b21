"""One personalisation on the disk: reference, run folder, training, what was learned, and pictures from it."""
