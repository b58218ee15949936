"""The only place that runs models or reads data."""
