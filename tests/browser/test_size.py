"""What a page weighs, and the picture of it that the README begins with."""

import gzip
from pathlib import Path

from xbyte_live.frontend.bundle import STATIC, build

ROOT = Path(__file__).parents[2]
PICTURE = ROOT / "samples" / "watch.jpg"
MOST_SCRIPT, MOST_PICTURE = 350_000, 200_000  # bytes; scripts as they travel, with hls.js


def test_the_watch_page_stays_light() -> None:
    build()  # nothing where it is up to date
    assert len(gzip.compress((STATIC / "watch.js").read_bytes())) <= MOST_SCRIPT


def test_the_readme_begins_with_a_small_picture() -> None:
    first_screen = (ROOT / "README.md").read_text("utf-8").splitlines()[:20]
    assert any(f"({PICTURE.relative_to(ROOT)})" in line for line in first_screen)
    assert PICTURE.stat().st_size <= MOST_PICTURE
