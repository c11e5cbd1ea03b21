"""Attention maps to explore by hand, in a notebook and as one offline page."""
