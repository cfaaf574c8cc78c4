"""The symmetries of a network, and the form that they bring every network of a population into."""
