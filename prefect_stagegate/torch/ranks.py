"""Which of several training processes this one is."""

from __future__ import annotations

import os
import sys

from prefect_stagegate.errors import UsageError


def rank_and_ranks(rank: int | None, world_size: int | None) -> tuple[int, int]:
    """This process' number and how many there are: as given, else torch.distributed's, else RANK and WORLD_SIZE.

    Raises:
        UsageError: One of two is given, or they are no such numbers.
    """
    if rank is None and world_size is None:
        distributed = sys.modules.get("torch.distributed")  # whoever initialised it has imported it
        if distributed and distributed.is_available() and distributed.is_initialized():
            return distributed.get_rank(), distributed.get_world_size()
    texts = (os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1"))
    given = texts if rank is None and world_size is None else (rank, world_size)
    try:
        number, ranks = (int(value) for value in given if value is not None)
    except ValueError:
        number, ranks = -1, 0
    if not 0 <= number < ranks:
        raise UsageError(
            f"Rank {given[0]} of {given[1]} ranks doesn't exist",
            hint="Give `rank` and `world_size`, or set RANK and WORLD_SIZE as torchrun does.",
        )
    return number, ranks
