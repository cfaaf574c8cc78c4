"""One word of `--cfg-options`."""

import argparse


def setting(word: str) -> str:
    """Return the word; raise an `ArgumentTypeError` where it sets nothing, or where mmengine's parser fails over it."""
    from mmengine.config import DictAction

    key, equals, value = word.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"got {word!r}, expected a.b=value")
    try:
        DictAction._parse_iterable(value)
    except (AssertionError, RecursionError):  # an expression with brackets and commas, which it takes for lists
        line = f"got {word!r}, whose brackets or commas cannot be read here. Write it into a file, and give --config"
        raise argparse.ArgumentTypeError(line) from None
    return word
