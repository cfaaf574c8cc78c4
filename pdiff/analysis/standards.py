"""What is compared over conditions, and which sources are there to be held against."""

ORACLE, GENERATED = "oracle", "generated"
BASE = "base"  # type of a source that is what every network was fine-tuned from
# What nobody can have who wants a network for a new condition: types of sources that are there to be held against.
REFERENCES = ("oracle", "oracle_codec", "generated_permuted")
FEW = 10  # groups of conditions, below which a figure says little
