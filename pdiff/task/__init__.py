"""What plugins and the core hand to each other."""
