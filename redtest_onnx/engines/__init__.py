"""Where many pieces of work run: this process, local processes, or a Ray cluster."""
