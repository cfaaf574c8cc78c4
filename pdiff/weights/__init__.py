"""Parameters as data: which are selected, how they become a vector, where vectors and checkpoints live."""
