"""Channels of inner widths: what they cost, and which go beside layers for a budget."""
