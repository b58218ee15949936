"""Redundancy-aware architecture search: spaces, scores, proxies, engines."""
