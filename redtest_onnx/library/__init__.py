"""The library's face: one function for the work of each command, on models and data as users have them."""
