"""The five stages, in the order of the data: collect, fit, generate, evaluate, compare."""
