"""One word of `--cfg-options`."""

import argparse


def setting(word: str) -> str:
    """Return the word; raise an `ArgumentTypeError` where it sets nothing."""
    key, equals, _ = word.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"got {word!r}, expected a.b=value")
    return word
