"""Measure Replay against evaluating candidates one by one, on a random-weight timm network and random images."""

import argparse

CHUNK = 10


def parse() -> argparse.Namespace:
    """Return the arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", default="resnet18", help="timm name (default: %(default)s)")
    parser.add_argument("--size", type=int, default=224, help="side of an image (default: %(default)s)")
    parser.add_argument("--select", default="last_norms(2)", help="selector (default: %(default)s)")
    parser.add_argument("--candidates", type=int, default=100, help="K (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=16, help="images (default: %(default)s)")
    parser.add_argument("--naive", type=int, help="evaluate only so many one by one, and scale the time (default: K)")
    parser.add_argument("--memory", choices=("one", "replay"), help="print only baseline and peak memory, in bytes")
    return parser.parse_args()
