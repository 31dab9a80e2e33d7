"""Damaged files through every reader; and that broken readers are caught."""

import numpy as np
import pytest

from tests.mutations import bases, judge
from tests.mutations.__main__ import failures, main, table, trials
from tests.mutations.damage import ALL
from tests.mutations.judge import BAD, Result
from tests.mutations.parts import holds, spans
from tests.mutations.trial import KINDS, chosen
from tests.mutations.worker import Worker, run

SEED = 1
BROKEN = "tests.mutations.broken:"


def bad(n: int, seed: int, jobs: int = 1) -> str:
    """The failures of n trials over all readers, each with its command; empty without any."""
    names = [*bases.NAMES]
    return failures([*run(trials(names, n), seed, jobs=jobs)], seed)


def test_damaged_files_are_refused_or_harmless() -> None:
    found = bad(200, SEED)
    assert not found, f"seed {SEED}\n{found}"


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_ten_thousand_damaged_files_are_refused_or_harmless() -> None:
    found = bad(10_000, SEED, jobs=2)
    assert not found, f"seed {SEED}\n{found}"


def outcomes(reader: str, kinds: tuple[str, ...], turns: int = 1, seconds: float = 20) -> set[str]:
    """Outcomes of these kinds of damage with a broken reader."""
    numbers = [KINDS.index(kind) + turn * len(KINDS) for kind in kinds for turn in range(turns)]
    numbered = [(BROKEN + reader, number) for number in numbers]
    return {result.outcome for *_, result in run(numbered, SEED, seconds)}


def test_a_sound_reader_passes() -> None:
    assert outcomes("sound", ("none at all", "an empty file", "a FIFO")) == {"harmless", "refused"}


@pytest.mark.parametrize(
    ("reader", "kind", "outcome"),
    [
        ("crashing", "an empty file", "CRASH"),
        ("inventive", "an empty file", "ACCEPTED-WRONG"),
        ("suspicious", "none at all", "FALSE-ALARM"),
    ],
)
def test_a_broken_reader_is_caught(reader: str, kind: str, outcome: str) -> None:
    assert outcome in outcomes(reader, (kind,), turns=3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("reader", "kind", "outcome"),
    [
        ("dying", "an empty file", "CRASH"),
        ("greedy", "an empty file", "MEMORY"),
        ("blind", "none at all", "CRASH"),
        ("wordless", "an empty file", "CRASH"),
        ("careless", "an empty file", "CRASH"),
        ("insatiable", "an empty file", "MEMORY"),
        ("silent", "an empty file", "ACCEPTED-WRONG"),
    ],
)
def test_a_reader_that_is_broken_otherwise_is_caught(reader: str, kind: str, outcome: str) -> None:
    assert outcome in outcomes(reader, (kind,), turns=3)


@pytest.mark.slow
def test_a_reader_that_does_not_look_at_checksums_is_caught() -> None:
    kinds = ("one bit behind a checksum",)
    assert "ACCEPTED-WRONG" in outcomes("forgetful", kinds, turns=12)
    assert "ACCEPTED-WRONG" not in outcomes("sound", kinds, turns=12)


@pytest.mark.slow
def test_a_reader_that_hangs_is_ended_and_the_next_trial_runs() -> None:
    found = outcomes("hanging", ("an empty file", "none at all"), seconds=4)
    assert found == {"HANG", "harmless"}


@pytest.mark.slow
def test_one_trial_can_be_repeated_alone(capsys: pytest.CaptureFixture[str]) -> None:
    number = KINDS.index("an empty file")
    given = ["--reader", f"{BROKEN}crashing", "--seed", "7"]
    assert main([*given, "--only", str(number)]) == 1
    alone = capsys.readouterr().out
    assert main([*given, "--n", str(number + 1)]) == 1
    many = capsys.readouterr().out
    (line,) = [line for line in many.splitlines() if "an empty file (" in line]
    assert f"--seed 7 --only {number}" in many
    assert line in alone


@pytest.mark.slow
def test_exit_status_is_0_when_nothing_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--reader", "sdss", "--seed", "1", "--only", "0"]) == 0
    assert "0 bad of 1" in capsys.readouterr().out


def test_the_seed_decides_the_damage() -> None:
    kind = "bits flipped in data"
    one, same, other = (chosen("sdss", kind, np.random.default_rng(n)).lay for n in (1, 1, 2))
    assert one.keywords == same.keywords
    assert one.keywords != other.keywords


@pytest.mark.parametrize("name", bases.NAMES)
def test_every_kind_of_damage_changes_the_file(name: str) -> None:
    for number, kind in enumerate(KINDS):
        case = chosen(name, kind, np.random.default_rng([3, number]))
        if case.kind in ALL and not ALL[case.kind].sound:
            assert case.lay.keywords["content"] != case.survey.files[case.victim], case.kind


def test_values_that_differ_are_wrong_unless_the_damage_is_undetectable() -> None:
    (key, sound) = next(iter(bases.survey("sdss", "plain").rows.items()))
    changed = {key: {**sound, "flux": sound["flux"] * np.float32(1.5)}}
    rows = {key: sound}
    assert judge.judge(changed, rows, "nothing").outcome == "ACCEPTED-WRONG"
    assert judge.judge(changed, rows, "anything").outcome == "undetectable"
    assert judge.judge(changed, rows, "anything", promised=True).outcome == "ACCEPTED-WRONG"
    assert judge.judge(rows, rows, "nothing").outcome == "harmless"
    assert judge.judge({}, rows, "nothing").outcome == "ACCEPTED-WRONG"


@pytest.mark.parametrize(
    ("name", "value"), [("flux", 1e25), ("ivar", 1e30), ("mjd", 1e30), ("z", -9.0), ("ra", np.nan)]
)
def test_absurd_values_are_wrong_whatever_the_damage(name: str, value: float) -> None:
    (key, sound) = next(iter(bases.survey("sdss", "plain").rows.items()))
    row = {**sound, name: np.full_like(sound[name], value)}
    assert judge.judge({key: row}, {key: sound}, "anything").outcome == "ACCEPTED-WRONG"


def test_a_lost_redshift_is_wrong_unless_it_was_the_damage() -> None:
    (key, sound) = next(iter(bases.survey("sdss", "plain").rows.items()))
    row = {**sound, "z": np.float64("nan")}
    for may in ("nothing", "less"):
        assert judge.judge({key: row}, {key: sound}, may).outcome == "ACCEPTED-WRONG"
    assert judge.judge({key: row}, {key: sound}, "pixels").outcome == "no data"


def test_less_than_the_sound_row_is_wrong_where_a_checksum_tells_of_the_damage() -> None:
    (key, sound) = next(iter(bases.survey("sdss", "plain").rows.items()))
    dropped = np.where(np.arange(sound["ivar"].size) == sound["ivar"].argmax(), 0, 1)
    pixels = {name: (sound[name] * dropped).astype("f4") for name in ("flux", "ivar")}
    found, rows = {key: {**sound, **pixels}}, {key: sound}
    assert judge.judge(found, rows, "pixels").outcome == "no data"
    assert judge.judge(found, rows, "pixels", promised=True).outcome == "ACCEPTED-WRONG"


def test_a_checksum_that_the_damage_does_not_change_tells_nothing() -> None:
    sound = bases.survey("desi", "summed").files["coadd-main-dark-9.fits"]
    begin, data, _, _ = [*spans(sound)][1]
    assert holds(sound, sound)
    assert not holds(sound[:data] + bytes([sound[data] ^ 1]) + sound[data + 1 :], sound)
    # Words swapped: the sum of both is the same.
    swapped = sound[data + 4 : data + 8] + sound[data : data + 4]
    assert holds(sound[:data] + swapped + sound[data + 8 :], sound)
    assert not holds(sound[: begin + 100], sound)


def test_the_table_counts_outcomes() -> None:
    results = [("sdss", n, Result(outcome=each, kind="none at all")) for n, each in enumerate(BAD)]
    lines = table(results).splitlines()
    assert lines[1].split()[-len(BAD) :] == ["1"] * len(BAD)
    assert lines[-1].split()[-len(BAD) :] == ["1"] * len(BAD)


def test_trials_reach_every_kind_with_every_reader() -> None:
    names = [*bases.NAMES]
    numbered = trials(names, len(names) * len(KINDS))
    assert {(name, number % len(KINDS)) for name, number in numbered} == {
        (name, kind) for name in names for kind in range(len(KINDS))
    }


@pytest.mark.slow
def test_a_worker_that_was_closed_starts_again() -> None:
    worker = Worker(SEED)
    try:
        first = worker.run("table", 0)
        worker.close()
        assert worker.run("table", 0).outcome == first.outcome == "harmless"
    finally:
        worker.close()
