"""Readers: threads that work beside a network, each on one core.

Two pools of threads of PyTorch's on the same cores put each other to sleep at every small sum: a
reader that had all cores took twice the time, and its processor time from the network.
"""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import torch


def readers(n: int) -> ThreadPoolExecutor:
    """n threads whose tensors are worked on by the thread alone."""
    ours, begun = torch.get_num_threads(), Barrier(n + 1)

    def begin() -> None:
        # Asked for the first time, a thread takes the number of the others: it is asked first.
        torch.get_num_threads()
        torch.set_num_threads(1)
        begun.wait()

    pool = ThreadPoolExecutor(max_workers=n, initializer=begin)
    for _ in range(n):
        # A thread begins with the first task that finds no other thread idle.
        pool.submit(int)
    begun.wait()
    # What a thread sets for itself, threads that begin later are given as well.
    torch.set_num_threads(ours)
    return pool
