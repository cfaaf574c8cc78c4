"""Networks that are trained together: a collection of many is divided into blocks, which processes share."""

from pdiff import check_positive


def blocks_of(count: int, together: int) -> list[range]:
    """Return the numbers of the networks of each block, of `count` networks.

    Args:
        count: how many networks there are.
        together: networks of a block, at most.
    """
    check_positive("collect", together=together)
    return [range(count)[start : start + together] for start in range(0, count, together)]
