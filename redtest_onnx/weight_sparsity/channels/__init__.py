"""Channels that are zero as a whole."""
