"""Clock: of a machine, put back by a few seconds, as NTP does it in the night."""

import logging
import time
from datetime import UTC, datetime

logger = logging.getLogger(__name__)

MOST_S = 60.0
"What is waited for, s; a clock that stands further back is wrong, and the store refuses it."


def catch_up(last: datetime) -> None:
    """Wait until it is later than the last version: Icechunk refuses one that is older than it."""
    behind = (last - datetime.now(UTC)).total_seconds()
    if 0 < behind <= MOST_S:
        logger.warning("the clock was put back: waiting %.1f s to be past the last commit", behind)
        time.sleep(behind)
