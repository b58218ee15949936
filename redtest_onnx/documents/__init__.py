"""Results as documents: what JSON files, tables and notebooks show of them."""
