"""Routes: ordered rules, and only models that have passed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.route import NOWHERE, Chosen, Plan, best, plan
from storage.schema import ObjectType, Reason, Status
from tests.pipeline.scene import GOOD, POOR, card_of, save
from tests.pipeline.stores import verdict_of

A = Chosen(path="checkpoints/a-11111111", alias="a", verdict="passed")
B = Chosen(path="checkpoints/b-22222222", alias="b", verdict="passed")
RULES = Plan(
    where=("z < 0.1", "class == 'GALAXY'", "class == 'STAR'"),
    reasons=("", "", "stars have no model"),
    chosen=(A, B, None),
)


def columns(n: int, **given: Any) -> dict[str, Any]:
    return {
        "z": np.full(n, 0.05),
        "class": np.full(n, "GALAXY"),
        "object_type": np.zeros(n, "u1"),
        "status": np.full(n, Status.DONE),
        **{name: np.asarray(values) for name, values in given.items()},
    }


def test_the_first_rule_that_fits_takes_a_row() -> None:
    rows = columns(4, z=[0.05, 0.2, 0.2, 0.2], **{"class": ["GALAXY", "GALAXY", "STAR", "QSO"]})
    assert RULES.numbers(rows, 4).tolist() == [0, 1, 2, NOWHERE]
    for chosen, expected in (
        (A, [Reason.NONE, Reason.ROUTED_ELSEWHERE, Reason.ROUTED_NOWHERE, Reason.ROUTED_NOWHERE]),
        (B, [Reason.ROUTED_ELSEWHERE, Reason.NONE, Reason.ROUTED_NOWHERE, Reason.ROUTED_NOWHERE]),
    ):
        status, code, number = RULES.ledger(rows, 4, chosen)
        assert code.tolist() == expected
        assert ((status == Status.DONE) == (code == Reason.NONE)).all()
        assert number.tolist() == [0, 1, 2, NOWHERE]


def test_what_became_of_a_row_before_goes_before_its_route() -> None:
    rows = columns(
        5,
        status=[Status.QUARANTINED, Status.NOT_APPLICABLE, Status.PENDING, 1, 1],
        object_type=[ObjectType.SKY, 0, 0, ObjectType.SKY, ObjectType.STANDARD],
    )
    status, code, _ = RULES.ledger(rows, 5, A)
    assert (status == Status.NOT_APPLICABLE).all()
    assert code.tolist() == [
        Reason.UPSTREAM_QUARANTINED,
        Reason.UPSTREAM_NOT_APPLICABLE,
        Reason.UPSTREAM_NOT_APPLICABLE,
        Reason.NOT_SCIENCE,
        Reason.NOT_SCIENCE,
    ]


def test_a_redshift_that_is_not_known_fits_no_rule_about_it() -> None:
    rows = columns(1, z=[np.nan], **{"class": ["QSO"]})
    assert RULES.numbers(rows, 1).tolist() == [NOWHERE]


def test_two_rules_may_lead_to_one_model(tmp_path: Path) -> None:
    path = save(tmp_path, "filter")
    names = ("filter", path.name, path.name[-8:], str(path))
    found = plan(card_of(tmp_path, *({"model": name, "where": "z < 0.1"} for name in names)))
    assert len(found.checkpoints) == 1
    assert found.ledger(columns(1), 1, found.checkpoints[0])[0].tolist() == [Status.DONE]


def test_a_route_to_none_keeps_its_reason(tmp_path: Path) -> None:
    save(tmp_path, "filter")
    routes = {"model": "filter", "where": "z < 0.1"}, {"model": "none", "reason": "too far"}
    found = plan(card_of(tmp_path, *routes))
    assert found.reasons == ("", "too far")
    assert found.chosen[1] is None
    assert [chosen.alias for chosen in found.checkpoints] == ["filter"]


def test_best_is_the_lowest_score_among_those_that_pass(tmp_path: Path) -> None:
    better, worse = verdict_of(0.5), verdict_of(0.6)
    assert better.passed
    assert worse.passed
    assert better.score < worse.score
    failed = better.model_copy(update={"passed": False})
    for cutoff, (name, verdict) in enumerate(
        {"worse": worse, "better": better, "failed": failed, "new": None}.items(), start=1
    ):
        save(tmp_path, name, verdict=verdict, cutoff=cutoff / 4)
    assert best(str(tmp_path / "checkpoints")) == "better"
    (chosen,) = plan(card_of(tmp_path, {"model": "best"})).checkpoints
    assert (chosen.alias, chosen.verdict) == ("better", "passed")


def test_best_of_none_gives_the_reason_of_each(tmp_path: Path) -> None:
    save(tmp_path, "poor", verdict=POOR)
    save(tmp_path, "new", verdict=None, cutoff=0.5)
    with pytest.raises(ValueError, match="no model passes") as caught:
        best(str(tmp_path / "checkpoints"))
    assert f"poor: {POOR.reason}" in str(caught.value)
    assert "new: no verdict" in str(caught.value)


@pytest.mark.parametrize(
    ("verdict", "words"), [(POOR, f"failed: {POOR.reason}"), (None, "missing")]
)
def test_a_model_that_has_not_passed_is_refused_unless_the_card_allows_it(
    tmp_path: Path, verdict: Any, words: str
) -> None:
    assert GOOD.passed
    assert not POOR.passed
    save(tmp_path, "filter", verdict=verdict)
    with pytest.raises(ValueError, match="a model must pass before it touches a survey") as caught:
        plan(card_of(tmp_path, {"model": "filter"}))
    assert words in str(caught.value)
    allowed = card_of(tmp_path, {"model": "filter"}, denoise={"unproven": True})
    assert plan(allowed).checkpoints[0].verdict == words


def test_missing_checkpoints_say_what_makes_them(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no checkpoints; `specmill train CARD`"):
        plan(card_of(tmp_path, {"model": "best"}))
    save(tmp_path, "filter")
    with pytest.raises(ValueError, match=r"no checkpoint 'filtre' .*there: filter -> filter-"):
        plan(card_of(tmp_path, {"model": "filtre"}))


def test_a_verdict_of_another_version_is_named(tmp_path: Path) -> None:
    path = save(tmp_path, "filter")
    (path / "verdict.json").write_text('{"passed": true}')
    with pytest.raises(ValueError, match=r"verdict.json: not as this version .* `specmill train`"):
        plan(card_of(tmp_path, {"model": "filter"}))


def test_more_rules_than_numbers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="300 rules, at most 254"):
        plan(card_of(tmp_path, *({"model": "none"} for _ in range(300))))
