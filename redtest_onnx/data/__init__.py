"""Where samples come from, and which of them serve which purpose."""
