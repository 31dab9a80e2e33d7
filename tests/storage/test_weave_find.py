"""Which WEAVE files are of a configuration and a product, and where their redshifts are."""

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from storage import objects
from storage.border import NO_REDSHIFT
from storage.readers import weave
from storage.schema import Reason, Status
from storage.weave.layout import GRIDS, named
from tests.storage.weave_mock import FIBRES, cname, fibtable, l1, l2, load, redshifts

CONFIG = "weave-lr-blue"


def files(root: Path, config: str = CONFIG, **options: str) -> list[str]:
    sources = weave.build(**options).find(str(root), config)
    return [str(Path(file).relative_to(root)) for source in sources for file in source.files]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("single_1002046.fit", ("single", "1002046")),
        ("stack_1002046.fits", ("stack", "1002046")),
        ("stacked_1002046.fit.gz", ("stack", "1002046")),
        ("superstack_r0000001.fit", ("superstack", "r0000001")),
        ("WVE_12345678+1234567_BL1.fit", ("supertarget", "WVE_12345678+1234567_BL1")),
    ],
)
def test_a_name_says_product_and_run(name: str, expected: tuple[str, str]) -> None:
    found = named(f"20251202/{name}")
    assert found is not None
    assert (found.product, found.run) == expected


@pytest.mark.parametrize(
    "name",
    [
        "stackcube_1002046.fit",
        "stack_1002046__stack_1002045_APS.fits",
        "LWVE_12345678+1234567_BL1.fit",
        "WVE_12345678+1234567_00_BR_L1_APS.fits",
        "r1002046.fit",
        ".stack_1002046.fit.77",
    ],
)
def test_other_files_are_no_l1_spectra(name: str) -> None:
    assert named(name) is None


@pytest.mark.parametrize(
    ("arm", "start", "primary", "expected"),
    [
        ("BLUE", 5000, {"VPH": "LowRes"}, "weave-lr-blue"),
        ("RED", 6000, {"VPH": "LowRes"}, "weave-lr-red"),
        ("BLUE", 4300, {"VPH": "HighRes1"}, "weave-hr-blue"),
        ("BLUE", 5000, {"VPH": "HighRes2"}, "weave-hr-green"),
        ("GREEN", 5000, {"VPH": "HighRes2"}, "weave-hr-green"),
        ("RED", 6000, {"VPH": "HighRes1"}, "weave-hr-red"),
        ("BLUE", 5000, {"VPH": "1"}, "weave-lr-blue"),
        ("BLUE", 4300, {"VPH": "2"}, "weave-hr-blue"),
        ("BLUE", 5000, {"VPH": "3"}, "weave-hr-green"),
        ("RED", 6000, {"VPH": "", "MODE": "LOWRES"}, "weave-lr-red"),
        ("BLUE", 5000, {"VPH": "", "MODE": "HIGHRES"}, "weave-hr-green"),
        # Nothing but 100 A of coverage: it is no low resolution.
        ("BLUE", 4300, {"VPH": ""}, "weave-hr-blue"),
    ],
)
def test_arm_and_grating_are_the_configuration(
    tmp_path: Path, arm: str, start: float, primary: dict[str, str], expected: str
) -> None:
    l1(tmp_path / "stack_1.fit", arm, {"CRVAL1": float(start)}, primary)
    for config in GRIDS:
        if config == expected:
            ds = load(tmp_path, config)
            assert (ds["status"] == Status.DONE).all(), ds["reason"].to_numpy()
            assert f"-{expected.split('-')[2]}-" in str(ds["observation"].values[0])
        else:
            with pytest.raises(FileNotFoundError, match=rf"there: 1 stack {expected}"):
                files(tmp_path, config)


def test_one_product_is_read_and_the_others_are_named(tmp_path: Path) -> None:
    night = tmp_path / "20251202"
    for name in ("stack_3", "single_5", "single_4", "superstack_1", "stack_2"):
        l1(night / f"{name}.fit")
    assert files(tmp_path) == ["20251202/stack_2.fit", "20251202/stack_3.fit"]
    assert files(tmp_path, product="single") == ["20251202/single_4.fit", "20251202/single_5.fit"]
    assert files(tmp_path, product="superstack") == ["20251202/superstack_1.fit"]
    words = r"no supertarget file of weave-lr-blue \(there: 2 single, 2 stack, 1 superstack\)"
    with pytest.raises(FileNotFoundError, match=words):
        files(tmp_path, product="supertarget")


def test_an_unknown_product_is_no_option() -> None:
    with pytest.raises(ValueError, match=r"product"):
        weave.build(product="cube")


def test_an_unknown_configuration_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'weave-blue' is not of reader weave.*weave-hr-red"):
        files(tmp_path, "weave-blue")


def test_a_file_that_does_not_tell_its_arm_is_refused_in_each(tmp_path: Path) -> None:
    (tmp_path / "stack_1.fit").write_bytes(b"garbage")
    l1(tmp_path / "stack_2.fit", without=("DATA",))
    for config in ("weave-lr-blue", "weave-hr-red"):
        ds = load(tmp_path, config)
        codes = ds["reason_code"].to_numpy().tolist()
        assert codes == [Reason.UNREADABLE] + [Reason.MISSING_HDU] * FIBRES
        assert "expected one of BLUE_DATA" in str(ds["reason"].values[-1])


def test_a_file_of_two_arms_is_refused(tmp_path: Path) -> None:
    path = l1(tmp_path / "stack_1.fit")
    with fits.open(path, mode="append") as hdus:
        hdus.append(fits.ImageHDU(hdus["BLUE_DATA"].data, name="RED_DATA"))
    assert "one arm each" in str(load(tmp_path)["reason"].values[0])


def test_big_files_are_read_in_parts_of_bounded_size(tmp_path: Path) -> None:
    config = "weave-hr-red"
    most = (256 << 20) // (18 * GRIDS[config].size)
    n = most + 10
    l1(
        tmp_path / "stack_1.fit",
        "RED",
        {"CRVAL1": 6000.0, "CD1_1": 0.05},
        {"VPH": "HighRes1"},
        fibtable(Nspec=np.arange(1, n + 1)),
        DATA=np.ones((n, 8), "f4"),
    )
    sources = list(weave.build().find(str(tmp_path), config))
    assert [(source.start, source.rows) for source in sources] == [(0, most), (most, 10)]
    ds = weave.build().read(sources[1], str(tmp_path), config)
    assert ds["source_row"].to_numpy().tolist() == list(range(most, n))


def test_supertargets_of_one_row_share_a_source(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        table = fibtable(**{"Nspec": np.array([number])}, FIBREID=None, TARGUSE=None, STATUS=None)
        table.columns.del_col("Nspec")
        l1(
            tmp_path / f"{cname(number)}_BL1.fit",
            table=type(table).from_columns(table.columns, name="FIBTABLE"),
            DATA=np.full(40, 100.0 * number, "f4"),
        )
    (tmp_path / f"{cname(4)}_BL1.fit").write_bytes(b"garbage")
    (source,) = weave.build(product="supertarget").find(str(tmp_path), CONFIG)
    assert source.rows == 4
    ds = load(tmp_path, product="supertarget")
    assert ds["status"].to_numpy().tolist() == [1, 1, 1, 2]
    np.testing.assert_allclose(ds["flux"].max("wavelength")[:3], [300, 600, 900], rtol=1e-6)
    assert str(ds["observation"].values[0]) == f"supertarget-{cname(1)}_BL1-blue-{cname(1)}"
    assert (ds["object_type"][:3] == 0).all()


@pytest.mark.parametrize(("suffix", "name"), [("", "CLASS_TABLE"), ("_RR", "CLASS")])
def test_redshifts_are_found_by_name_not_by_row(tmp_path: Path, suffix: str, name: str) -> None:
    l1(tmp_path / "L1" / "stack_2.fit")
    order = np.array([5, 3, 1, 6, 2])
    l2(tmp_path / "L2" / "stack_2__stack_1_APS.fits", suffix, name, **redshifts(order))
    l2(tmp_path / "L2" / "stack_9__stack_8_APS.fits", **redshifts(order + 1))
    ds = load(tmp_path)
    assert (ds["status"] == Status.DONE).all()
    np.testing.assert_allclose(ds["z"], [0.1, 0.2, 0.3, np.nan, 0.5, 0.6])
    np.testing.assert_allclose(ds["z_err"], [1e-4, 2e-4, 3e-4, np.nan, 5e-4, 6e-4], rtol=1e-6)
    assert ds["zwarn"].to_numpy().tolist() == [1, 0, 1, NO_REDSHIFT, 1, 0]
    assert ds["class"].to_numpy().tolist() == ["GALAXY", "QSO", "STAR", "", "QSO", "STAR"]
    assert ds["subclass"].to_numpy().tolist() == ["", "HIZ", "", "", "HIZ", ""]


def test_redshifts_are_found_by_the_target_where_there_is_no_cname(tmp_path: Path) -> None:
    l1(tmp_path / "stack_2.fit", table=fibtable(CNAME=[""] * FIBRES))
    found = redshifts(np.array([2, 1])) | {"CNAME": ["", ""], "TARGID": ["target 2", "target 1"]}
    l2(tmp_path / "stack_2__stack_1_APS.fits", **found)
    np.testing.assert_allclose(load(tmp_path)["z"][:3], [0.1, 0.2, np.nan])


def test_the_best_of_ranked_solutions_counts(tmp_path: Path) -> None:
    l1(tmp_path / "stack_2.fit")
    found = redshifts(np.array([2, 1]))
    z = np.asarray(found["Z"])
    ranked = {"Z": np.stack([z, z + 3], axis=1), "CLASS": [["QSO", "STAR"], ["GALAXY", "STAR"]]}
    table = Table(found | ranked, meta={"EXTNAME": "CLASS_TABLE"})
    table.write(tmp_path / "stack_2__stack_1_APS.fits")
    ds = load(tmp_path)
    np.testing.assert_allclose(ds["z"][:2], [0.1, 0.2])
    assert ds["class"].to_numpy().tolist()[:2] == ["GALAXY", "QSO"]


def test_a_file_of_another_name_says_in_its_header_what_it_was_made_from(tmp_path: Path) -> None:
    l1(tmp_path / "stack_2.fit")
    path = l2(tmp_path / "night7_APS.fits", **redshifts(np.array([1, 2])))
    with fits.open(path, mode="update") as hdus:
        hdus[0].header["L1_REF_B"] = "stack_2.fit"
    np.testing.assert_allclose(load(tmp_path)["z"][:2], [0.1, 0.2])


def test_results_that_came_with_a_later_file_are_found(tmp_path: Path) -> None:
    for run in ("2", "4"):
        l1(tmp_path / f"stack_{run}.fit")
        l2(tmp_path / f"stack_{run}__stack_1_APS.fits", **redshifts(np.array([1, 2])))
        assert np.isfinite(load(tmp_path)["z"]).sum() == int(run)


def test_both_arms_of_a_run_show_the_same_objects(tmp_path: Path) -> None:
    order = np.array([4, 1, 6, 2, 5, 3])
    l1(tmp_path / "stack_2.fit")
    l1(tmp_path / "stack_1.fit", "RED", {"CRVAL1": 6000.0}, table=fibtable(Nspec=order))
    l2(tmp_path / "stack_2__stack_1_APS.fits", **redshifts(np.arange(1, 7)))
    arms = [load(tmp_path, config) for config in ("weave-lr-blue", "weave-lr-red")]
    columns = ("survey", "target_id", "observation", "ra", "dec")
    joined = [np.concatenate([arm[name].to_numpy() for arm in arms]) for name in columns]
    found = objects.assign(*joined, identity=weave.build().identity).object_id
    assert len(set(joined[2])) == 2 * FIBRES
    np.testing.assert_array_equal(found[FIBRES:], found[:FIBRES][order - 1])
    np.testing.assert_allclose(arms[1]["z"], 0.1 * order)
