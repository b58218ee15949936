"""What tools/fuzz.py feeds to the command line, and how it is run."""
