"""What each output of a model is, found from the graph or told by the user."""
