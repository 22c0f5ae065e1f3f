"""Training: the loop, the methods that it drives, and what it records."""
