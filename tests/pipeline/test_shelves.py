"""Shelves: what is listed of an index is what its paper says."""

from pipeline.shelves import shelf_table


def test_an_index_is_listed_with_its_bands_to_the_last_digit() -> None:
    table = shelf_table("indices")
    assert [column.header for column in table.columns] == [
        *("name", "bands (rest, air Å)", "units", "reference")
    ]
    names, *cells = ([str(cell) for cell in column.cells] for column in table.columns)
    rows = dict(zip(names, zip(*cells, strict=True), strict=True))
    assert rows["Mgb"] == (
        "5142.625-5161.375  5160.125-5192.625  5191.375-5206.375",
        "Angstrom",
        "Trager et al. 1998, ApJS 116, 1",
    )
    assert rows["Dn4000"][:2] == ("3850-3950  4000-4100", "1")


def test_what_is_made_of_other_indices_is_listed_by_their_names() -> None:
    table = shelf_table("indices")
    names, bands = ([str(cell) for cell in column.cells] for column in table.columns[:2])
    assert dict(zip(names, bands, strict=True))["MgFe_prime"] == "those of Mgb, Fe5270, Fe5335"
