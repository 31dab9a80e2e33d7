"""The coordinator of a trial: the specmill command, over small chunks and with a troubled pass.

`python -m tests.faults.coordinator FOLDER map card.toml` is one by hand.
"""

import os
import sys
import threading
import time
from functools import partial
from pathlib import Path
from unittest import mock

from tests.faults import broken, clock
from tests.faults.ground import small_chunks
from tests.faults.trouble import PROGRESS, Faulty, Trouble

ANSWER_S = 4
"For how long a scheduler that is gone is looked for; 30 s in earnest."

MANY = 2
"Failed blocks after which a run gives up; 8 in earnest, of a run with more than a dozen."


def coordinate(words: tuple[str, ...], trouble: Trouble, skew: tuple[int, int] | None) -> None:
    """Do a verb of the command in the folder of a trial.

    skew : blocks after whose beginning the clock is put wrong, and by how many seconds.
    """
    from pipeline import cli

    os.chdir(trouble.folder)
    if skew is not None:
        threading.Thread(target=_skew, args=(trouble.folder, *skew), daemon=True).start()
    with (
        small_chunks(),
        mock.patch("pipeline.passes.Pass", partial(Faulty, trouble=trouble)),
        mock.patch("deploy.backends.scheduler.ANSWER_S", ANSWER_S),
        mock.patch("pipeline.flow.MANY", MANY),
        mock.patch.object(sys, "argv", ["specmill", *words]),
        broken.engine(trouble.wrong),
    ):
        cli.main()


def scheduler(port: int, folder: str) -> None:
    """A scheduler that nobody's command owns."""
    from distributed.cli.dask_scheduler import main

    os.chdir(folder)
    main(["--host", "127.0.0.1", "--port", str(port), "--no-dashboard"], standalone_mode=False)


def worker(port: int, memory_mib: int, folder: str) -> None:
    """A nanny and its worker, for that scheduler."""
    from distributed.cli.dask_worker import main

    os.chdir(folder)
    limits = ["--nthreads", "1", "--memory-limit", f"{memory_mib}MiB", "--no-dashboard"]
    place = ["--host", "127.0.0.1", "--local-directory", folder, "--death-timeout", "20"]
    main([f"tcp://127.0.0.1:{port}", *limits, *place], standalone_mode=False)


def _skew(folder: str, blocks: int, seconds: int) -> None:
    path = Path(folder) / PROGRESS
    while not path.exists() or len(path.read_text().splitlines()) < blocks:
        time.sleep(0.01)
    clock.skew(seconds)


if __name__ == "__main__":
    coordinate(tuple(sys.argv[2:]), Trouble(folder=sys.argv[1]), None)
