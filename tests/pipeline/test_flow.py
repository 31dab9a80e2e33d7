"""A flow of blocks ends in words when there is nobody left to give them to."""

from typing import Any, cast

import pytest
from distributed import Client
from distributed.client import ClosedClientError

from pipeline.block import Block, BlockError, Target
from pipeline.flow import Flow


class Deaf:
    """Stands for a client whose scheduler has died: it is asked on a new connection, in vain."""

    def nthreads(self) -> dict[str, int]:
        raise OSError("Timed out trying to connect to tcp://127.0.0.1:8786 after 4 s")

    def cancel(self, futures: list[Any]) -> None:
        raise ClosedClientError("Client is closed. Can't send cancel-keys message.")


def test_a_scheduler_that_does_not_answer_ends_a_stage_in_words() -> None:
    class Named:
        name = "denoise"

    flow = Flow(
        client=cast(Any, Deaf()),
        make=cast(Any, None),
        target=cast(Target, Named()),
        fork=cast(Any, None),
    )
    block = Block(first=0, last=4, groups=frozenset(["spectra/x"]))
    # A flow waits on the client that is there.
    with (
        Client(processes=False, n_workers=1, dashboard_address=None),
        pytest.raises(BlockError, match=r"scheduler is gone .*the same command goes on"),
    ):
        next(flow.run([block]))
