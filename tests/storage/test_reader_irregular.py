"""What is no file in the place of one: readers neither wait for it nor read it without end."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from storage import files
from storage.readers import desi, sdss, table, weave
from storage.schema import Reason, Status
from tests.storage import desi_mock, sdss_mock, table_mock, weave_mock
from tests.storage.table_mock import columns, write_table


def put_fifo(path: Path) -> None:
    os.mkfifo(path)


def put_zero(path: Path) -> None:
    path.symlink_to("/dev/zero")


def put_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        here = Path.cwd()
        # The name of a socket is short: it is made from within its folder.
        os.chdir(path.parent)
        made.bind(path.name)
        os.chdir(here)


KINDS = pytest.mark.parametrize(
    ("put", "words"),
    [
        (put_fifo, "a pipe (FIFO), expected a regular file; "),
        (put_zero, "a device, through a link, expected a regular file; "),
        (put_socket, "a socket, expected a regular file; "),
    ],
)
Put = Callable[[Path], None]


def refused(ds: xr.Dataset, *words: str) -> None:
    assert (ds["status"] == Status.QUARANTINED).all()
    assert (ds["reason_code"] == Reason.UNREADABLE).all()
    for word in words:
        assert all(word in str(reason) for reason in ds["reason"].to_numpy()), ds["reason"].item(0)


@KINDS
@pytest.mark.parametrize("packed", ["", ".gz"])
@pytest.mark.parametrize("config", ["sdss", "sdss-exposure"])
def test_sdss(tmp_path: Path, put: Put, words: str, packed: str, config: str) -> None:
    name = f"spec-0266-51602-0001.fits{packed}"
    put(tmp_path / name)
    refused(sdss_mock.load(tmp_path, config), name, words, "check the path")


@KINDS
@pytest.mark.parametrize("packed", ["", ".gz"])
def test_desi(tmp_path: Path, put: Put, words: str, packed: str) -> None:
    put(tmp_path / f"{desi_mock.NAME}{packed}")
    refused(desi_mock.read(tmp_path), desi_mock.NAME, words, "check the path")


@KINDS
@pytest.mark.parametrize("packed", ["", ".gz"])
def test_redrock(tmp_path: Path, put: Put, words: str, packed: str) -> None:
    desi_mock.save(tmp_path, desi_mock.arms(2), desi_mock.fibermap(2))
    name = f"redrock-{desi_mock.NAME.partition('-')[2]}{packed}"
    put(tmp_path / name)
    refused(desi_mock.read(tmp_path), desi_mock.NAME, name, words, "fetch that file again")


def test_a_link_to_no_redrock_file_is_no_missing_one(tmp_path: Path) -> None:
    path = desi_mock.survey(tmp_path)
    beside = path.with_name("redrock-" + path.name.partition("-")[2])
    beside.unlink()
    beside.symlink_to(tmp_path / "nowhere")
    refused(desi_mock.read(tmp_path), beside.name, "No such file", "or remove it")


@KINDS
@pytest.mark.parametrize("packed", ["", ".gz"])
def test_weave(tmp_path: Path, put: Put, words: str, packed: str) -> None:
    put(tmp_path / f"stack_2.fit{packed}")
    refused(weave_mock.load(tmp_path), "stack_2.fit", words, "check the path")


@KINDS
@pytest.mark.parametrize("name", ["stack_2__stack_1_APS.fits", "night_APS.fits"])
def test_results_of_weave(tmp_path: Path, put: Put, words: str, name: str) -> None:
    weave_mock.l1(tmp_path / "stack_2.fit")
    put(tmp_path / name)
    ds = weave_mock.load(tmp_path)
    if name.startswith("stack"):
        refused(ds, "stack_2.fit", name, words, "fetch that file again")
    else:
        # Only its header could say what it was made from.
        assert (ds["status"] == Status.DONE).all()


@KINDS
@pytest.mark.parametrize("name", ["a.fits", "a.fits.gz", "a.ecsv", "a.parquet"])
def test_table(tmp_path: Path, put: Put, words: str, name: str) -> None:
    put(tmp_path / name)
    refused(table_mock.read(tmp_path), name, words, "check the path")


@KINDS
def test_table_through_specutils(tmp_path: Path, put: Put, words: str) -> None:
    pytest.importorskip("specutils")
    put(tmp_path / "a.fits")
    refused(table_mock.read(tmp_path, loader="specutils"), "a.fits", words)


@KINDS
def test_lists_of_files(tmp_path: Path, put: Put, words: str) -> None:
    write_table(tmp_path / "a.fits", columns())
    put(tmp_path / "list.fits")
    with pytest.raises(FileNotFoundError, match=r"list\.fits: no such catalogue"):
        next(table.build(catalog="list.fits").find(str(tmp_path), "table"))
    with pytest.raises(FileNotFoundError, match=r"list\.fits: no such table"):
        next(sdss.build(summary="list.fits").find(str(tmp_path), "sdss"))


@KINDS
def test_what_is_no_file_has_no_digest(tmp_path: Path, put: Put, words: str) -> None:
    put(tmp_path / "a")
    assert files.digest([str(tmp_path / "a")]) == ""
    with pytest.raises(files.NotAFileError) as error:
        files.regular(str(tmp_path / "a"))
    assert str(error.value) in words


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"^a folder, expected a regular file$"):
        files.regular(str(tmp_path))


def test_a_file_that_states_no_size_is_empty() -> None:
    # Some files of /proc wait, or have no end.
    found = Path("/proc/self/stat")
    if not found.exists():
        pytest.skip("no /proc here")
    assert files.content(str(found)) == b""


def test_digests_of_several_files_are_told_apart(tmp_path: Path) -> None:
    one, two, gone = (tmp_path / name for name in ("one", "two", "gone"))
    one.write_bytes(b"1")
    two.write_bytes(b"22")
    os.utime(one, ns=(5, 5))
    os.utime(two, ns=(7, 7))
    a, b, c = str(one), str(two), str(gone)
    found = {files.digest(some) for some in ([a], [b], [a, b], [b, a], [a, c], [a, b, c])}
    assert len(found) == 6
    assert all(len(bytes.fromhex(text)) == 16 for text in found)
    assert files.digest([c, a]) == ""
    assert files.facts([a, b, c]) == (3, 7)
    assert files.facts([c, a]) == (-1, 0)


def test_readers_say_which_files_are_beside_another(tmp_path: Path) -> None:
    path = desi_mock.survey(tmp_path)
    beside = desi.build().beside(str(path), str(tmp_path), "desi")
    assert beside == (str(path.with_name("redrock-main-dark-9.fits")),)
    assert desi_mock.read(tmp_path)["digest"].item(0) == files.digest([str(path), *beside])
    assert sdss.build().beside(str(path), str(tmp_path), "sdss") == ()
    assert table.build().beside(str(path), str(tmp_path), "table") == ()
    listed = table.build(catalog="list.csv").beside(str(path), str(tmp_path), "table")
    assert listed == (str(tmp_path / "list.csv"),)
    l1 = weave_mock.l1(tmp_path / "stack_2.fit")
    assert weave.build().beside(str(l1), str(tmp_path), "weave-lr-blue") == ()
    assert np.all(weave_mock.load(tmp_path)["digest"] == files.digest([str(l1)]))
