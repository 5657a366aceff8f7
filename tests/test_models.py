"""Names of items, renditions and files, and what the values answer."""

import re
from dataclasses import FrozenInstanceError, fields, is_dataclass
from fractions import Fraction
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xbyte_live import models
from xbyte_live.errors import ItemError
from xbyte_live.models import (
    Import,
    Offer,
    Rendition,
    Segment,
    Title,
    check_slug,
    segment_key,
    slug_of,
)
from xbyte_live.money import Price

SLUG = r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?"

slugs = st.from_regex(SLUG, fullmatch=True)


def a_rendition(name: str = "source", width: int | None = 1280) -> Rendition:
    segment = Segment(0, 1000, 0, 6_000_000, "0" * 64)
    return Rendition(
        name, "avc1.64001f", 900_000, 800_000, 6, True, (segment,), width, 720, Fraction(30)
    )


def a_title(*renditions: Rendition) -> Title:
    offers = (Offer(Price(1000), None, 0.0),)
    return Title("plasma", "Plasma", 0.0, 6_000_000, renditions, offers)


@given(slugs)
def test_a_slug_is_returned_as_it_is(slug: str) -> None:
    assert check_slug(slug) == slug


@pytest.mark.parametrize("slug", ["a", "0", "a-b", "a--b", "x" * 64, "2024-11-live"])
def test_names_that_are_slugs(slug: str) -> None:
    assert check_slug(slug) == slug


@pytest.mark.parametrize(
    "slug",
    ["", "-a", "a-", "A", "a_b", "a b", "a/b", "..", ".", "a.b", "é", "a\n", "\na", "x" * 65, "٣"],
)
def test_names_that_are_no_slugs(slug: str) -> None:
    with pytest.raises(ItemError, match="is no slug"):
        check_slug(slug)


def test_what_is_said_of_a_bad_slug_is_one_short_line() -> None:
    with pytest.raises(ItemError) as raised:
        check_slug("Ω\n" * 10_000)
    assert len(str(raised.value)) < 400
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("Big Buck Bunny", "big-buck-bunny"),
        ("talk.mp4", "talk-mp4"),
        ("  --Ünïcode__Name!! 2 ", "n-code-name-2"),
        ("x" * 63 + "-y", "x" * 63),
    ],
)
def test_a_name_suggests_a_slug(name: str, slug: str) -> None:
    assert slug_of(name) == slug


@given(st.text())
def test_whatever_a_name_suggests_is_a_slug(name: str) -> None:
    try:
        slug = slug_of(name)
    except ItemError:
        assert not re.search("[a-z0-9]", name.lower())
        return
    assert re.fullmatch(SLUG, slug)


@given(slugs, st.from_regex(r"[a-z0-9]{1,16}", fullmatch=True), st.integers(0, 2**53))
def test_a_segment_key_stays_under_its_item(slug: str, rendition: str, msn: int) -> None:
    key = PurePosixPath(segment_key(slug, rendition, msn))
    assert key.parts == (slug, rendition, f"{msn}.ts")


@pytest.mark.parametrize("rendition", ["", "..", "a/b", "A", "a-b", "x" * 17, "a\n"])
def test_a_bad_rendition_name_makes_no_key(rendition: str) -> None:
    with pytest.raises(ItemError, match="is no rendition name"):
        segment_key("plasma", rendition, 0)


def test_a_bad_slug_makes_no_key() -> None:
    with pytest.raises(ItemError, match="is no slug"):
        segment_key("../etc", "source", 0)


def test_two_imports_of_a_slug_share_no_file() -> None:
    first, second = Import(1, "plasma", 0), Import(2, "plasma", 7)
    keys = [first.object_key, first.poster_key, second.object_key, second.poster_key]
    assert len(set(keys)) == 4
    assert all(key.startswith("plasma/") for key in keys)


def test_a_title_finds_its_renditions_by_name() -> None:
    source, audio = a_rendition(), a_rendition("audio", width=None)
    title = a_title(source, audio)
    assert title.rendition("audio") is audio
    assert title.rendition("720p") is None


def test_a_rendition_knows_whether_it_has_pictures() -> None:
    assert a_rendition().has_video
    assert not a_rendition(width=None).has_video


def test_every_value_is_frozen_and_hashable() -> None:
    values = [v for v in vars(models).values() if isinstance(v, type) and is_dataclass(v)]
    assert values
    assert all("__slots__" in vars(value) for value in values)
    title = a_title(a_rendition())
    assert hash(title) == hash(a_title(a_rendition()))
    for value in (title, title.renditions[0], title.offers[0]):
        for field in fields(value):
            with pytest.raises(FrozenInstanceError):
                setattr(value, field.name, None)
