"""A file that kills whoever reads it costs its own row and nobody else's."""

from pathlib import Path

import numpy as np
import pytest
from distributed import Client

from pipeline import ingest, reprocess, simulate
from pipeline.blocks import Tally
from storage.schema import Reason, Status
from storage.store import Survey
from tests.pipeline import surveys
from tests.pipeline.deadly import MARK
from tests.pipeline.surveys import GROUP

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.usefixtures("small_chunks")]


def test_a_file_that_kills_its_reader_is_quarantined_and_the_rest_is_in(
    tmp_path: Path, client: Client
) -> None:
    made = surveys.mock_card(tmp_path)
    simulate.simulate(made)
    survey = made.survey.model_copy(update={"reader": "tests.pipeline.deadly"})
    card = made.model_copy(update={"survey": survey})
    files = sorted(Path(card.survey.root).rglob("*.fits"))
    with files[11].open("ab") as file:
        file.write(MARK)
    tally: Tally = ingest.ingest(card, client)
    ds = Survey.open(card.store).dataset(GROUP).load()
    out = np.arange(len(files)) == 11
    np.testing.assert_array_equal(ds["status"], np.where(out, Status.QUARANTINED, Status.DONE))
    assert ds["reason_code"][11] == Reason.FAILED
    assert "whoever computes it dies" in str(ds["reason"].to_numpy()[11])
    assert str(ds["source"].to_numpy()[11]) == str(files[11].relative_to(card.survey.root))
    assert tally.rows[Status.QUARANTINED] == 1
    assert ingest.is_done(card)
    assert reprocess.retry(card) == 1
    assert Survey.open(card.store).dataset(GROUP)["status"][11] == Status.PENDING
    assert not ingest.is_done(card)
    # The reader that was mended reads the same file, and finds the bytes behind its end.
    assert ingest.ingest(made, client).reasons == {Reason.UNREADABLE: 1}
