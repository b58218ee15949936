"""How far two models agree: one measure per kind of output, on plain arrays."""
