"""What the allocator does with memory that is freed."""

import torch

LARGE = 31 << 20  # bytes; above 32 MB glibc learns nothing from a block that is freed


def keep_freed_memory() -> None:
    """Let glibc keep memory that is freed, as it does in any process that has freed a large block before.

    In a young process it hands tensors of a few megabytes back at once, and the next step pays for their pages anew;
    a training run does not.
    """
    torch.empty(LARGE, dtype=torch.uint8)
