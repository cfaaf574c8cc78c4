"""Numbers in, numbers out: what follows from vectors and evaluations."""
