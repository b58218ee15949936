"""What least squares can restore after a removal."""
