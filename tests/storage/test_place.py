"""Where a store lies: paths, the settings of a bucket, and what a slot does in one step."""

import errno
import fcntl
import sys
from pathlib import Path

import pytest

from storage.place import StoreError, alone, bucket, location, objects, reaching, refusal
from storage.slot import Slot, Text, slot
from tests.storage import s3

PATH = "s3://data/dr1/survey.icechunk"


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for key in ("ENDPOINT_URL", "ENDPOINT_URL_S3", "REGION", "DEFAULT_REGION", "ALLOW_HTTP"):
        monkeypatch.delenv(f"AWS_{key}", raising=False)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    return monkeypatch


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Slot:
    if request.param == "folder":
        return slot(str(tmp_path / "survey.icechunk"))
    pytest.importorskip("obstore")
    return slot(f"{s3.bucket(monkeypatch)}/survey.icechunk")


def test_a_path_in_a_bucket_is_its_name_and_its_key(aws: pytest.MonkeyPatch) -> None:
    found = bucket(PATH)
    assert (found.name, found.prefix) == ("data", "dr1/survey.icechunk")
    assert (found.endpoint, found.region, found.allow_http) == (None, None, False)


def test_the_environment_says_how_a_bucket_is_reached(aws: pytest.MonkeyPatch) -> None:
    aws.setenv("AWS_ENDPOINT_URL", "https://of.all")
    assert bucket(PATH).region == "us-east-1"
    aws.setenv("AWS_ENDPOINT_URL_S3", "https://of.s3:9000")
    aws.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    assert bucket(PATH).region == "eu-west-1"
    aws.setenv("AWS_REGION", "eu-west-2")
    found = bucket(PATH)
    assert (found.endpoint, found.region) == ("https://of.s3:9000", "eu-west-2")
    told = str(location(PATH))
    for each in ("bucket=data", "prefix=dr1/survey.icechunk", "region=eu-west-2"):
        assert each in told
    assert "force_path_style=true" in told
    assert "allow_http=false" in told


def test_an_unencrypted_endpoint_is_for_this_machine_unless_it_is_allowed(
    aws: pytest.MonkeyPatch,
) -> None:
    aws.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9000")
    assert bucket(PATH).allow_http
    aws.setenv("AWS_ENDPOINT_URL", "http://far.away")
    with pytest.raises(ValueError, match=r"http://far.away: unencrypted; use https://"):
        location(PATH)
    aws.setenv("AWS_ALLOW_HTTP", "true")
    assert bucket(PATH).allow_http


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("survey.zarr", r"ends in \.icechunk"),
        ("s3://data/survey.zarr", r"ends in \.icechunk"),
        ("s3://survey.icechunk", r"expected s3://bucket/prefix/name\.icechunk"),
        ("s3:///survey.icechunk", r"expected s3://bucket/prefix/name\.icechunk"),
        ("s3:/data/survey.icechunk", r"begins with s3://"),
    ],
)
def test_a_path_that_leads_nowhere_is_refused(path: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        location(path)


def test_without_obstore_the_extra_is_named(aws: pytest.MonkeyPatch) -> None:
    aws.setitem(sys.modules, "obstore.store", None)
    with pytest.raises(ImportError, match=r"needs obstore; pip install 'specmill\[s3\]'"):
        objects(PATH)


def test_a_profile_alone_is_refused_with_the_cure(aws: pytest.MonkeyPatch) -> None:
    pytest.importorskip("obstore")
    aws.delenv("AWS_ACCESS_KEY_ID", raising=False)
    aws.setenv("AWS_PROFILE", "mine")
    with pytest.raises(ValueError, match=r"AWS_PROFILE=mine.*aws configure export-credentials"):
        objects(PATH)


OBSTORE = """Generic S3 error: Error performing PUT http://a/b - {words}

Debug source:
Generic {{
    store: "S3",
    source: RetryError(
        RetryErrorImpl {{
            retries: 10,
        }},
    ),
}}"""
ICECHUNK = """  x error getting object from object store service error
  |
  | context:
  |    0: icechunk::storage::s3::get_ref
  |-> service error
  `-> {words}
"""


@pytest.mark.parametrize("form", [OBSTORE, ICECHUNK], ids=["obstore", "icechunk"])
def test_what_a_service_refuses_is_said_in_its_own_words_without_its_structures(form: str) -> None:
    said = str(refusal(PATH, OSError(form.format(words="509 Bandwidth is used up"))))
    assert said.startswith(f"{PATH}: ")
    assert "509 Bandwidth is used up; what was committed is whole" in said
    assert "\n" not in said
    assert not set("{}|`") & set(said)


@pytest.mark.parametrize(
    ("words", "cure"),
    [
        ("HTTP error: error sending request", r"does not answer; check AWS_ENDPOINT_URL"),
        ("403: <Code>InvalidAccessKeyId</Code>", r"does not know this key; check AWS_ACCESS_KEY"),
        ("403: <Code>SignatureDoesNotMatch</Code>", r"check AWS_SECRET_ACCESS_KEY"),
        ("403: <Code>AccessDenied</Code>", r"access is denied; check AWS_ACCESS_KEY_ID"),
        ("404: <Code>NoSuchBucket</Code>", r"no such bucket; make it"),
    ],
)
@pytest.mark.parametrize("form", [OBSTORE, ICECHUNK], ids=["obstore", "icechunk"])
def test_what_can_be_cured_is_said_with_the_cure(form: str, words: str, cure: str) -> None:
    with pytest.raises(StoreError, match=cure), reaching(PATH):
        raise OSError(form.format(words=words))


def test_an_error_without_words_is_named_by_its_kind() -> None:
    assert str(refusal(PATH, OSError(""))).startswith(f"{PATH}: OSError; ")


def test_a_slot_of_a_service_that_is_not_there_says_what_to_check(aws: pytest.MonkeyPatch) -> None:
    pytest.importorskip("obstore")
    aws.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    aws.setenv("AWS_ACCESS_KEY_ID", "nobody")
    aws.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
    with pytest.raises(StoreError, match=rf"{PATH}.lease: the endpoint does not answer; check"):
        slot(PATH).create("mine")


def test_a_slot_is_made_once(place: Slot) -> None:
    assert place.read() is None
    assert place.create("mine")
    assert not place.create("theirs")
    found = place.read()
    assert found is not None
    assert found.text == "mine"
    assert place.remove(found)
    assert place.read() is None
    assert place.create("theirs")


@pytest.mark.parametrize("step", ["renew", "take"])
def test_a_slot_that_changed_meanwhile_is_not_replaced(place: Slot, step: str) -> None:
    place.create("old")
    old = place.read()
    assert old is not None
    assert getattr(place, step)(old, "new")
    assert not getattr(place, step)(old, "late")
    assert not place.remove(old)
    found = place.read()
    assert found is not None
    assert found.text == "new"


@pytest.mark.parametrize("step", ["renew", "take"])
def test_a_slot_that_is_gone_is_not_replaced(place: Slot, step: str) -> None:
    assert not getattr(place, step)(Text("old", '"tag"'), "new")
    assert not place.remove(Text("old", '"tag"'))
    assert place.read() is None


def test_a_folder_holds_nothing_but_the_slot_itself(tmp_path: Path) -> None:
    place = slot(str(tmp_path / "survey.icechunk"))
    for text in ("first", "second"):
        place.create(text)
    found = place.read()
    assert found is not None
    place.renew(found, "third")
    place.take(found, "fourth")
    assert [file.name for file in tmp_path.iterdir()] == ["survey.icechunk.lease"]


def test_of_two_in_one_folder_the_second_waits_in_vain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.place.LOCK_S", 0.1)
    with alone(str(tmp_path)):
        with pytest.raises(StoreError, match=r"inside a commit"), alone(str(tmp_path)):
            pass
        (tmp_path / "other").mkdir()
        with alone(str(tmp_path / "other")):
            pass
    with alone(str(tmp_path)):
        pass


def test_a_file_system_without_locks_leaves_it_to_the_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: int) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with alone(str(tmp_path)), alone(str(tmp_path)):
        pass
