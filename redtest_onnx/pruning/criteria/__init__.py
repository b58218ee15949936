"""The order in which layers are proposed for removal."""
