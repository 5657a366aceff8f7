"""Adapter: one picture of a segment as a JPEG; a program of its own, for it decodes.

    python -m xbyte_live.media.still CODEC < segment.ts > picture.jpg

It ends with status 1 where there is no picture in the segment.
"""

import resource
import sys

from xbyte_live.media.poster import PosterSearch

_MEMORY = 512 << 20  # bytes
_SECONDS = 5  # of a processor


def still(codec: str, segment: bytes) -> bytes | None:
    """The first picture of a segment, if it can be decoded."""
    search = PosterSearch(codec, 0)
    search.consider(0, segment)
    return search.result()


def main() -> int:
    """Read a segment, write a picture; the exit status."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (_SECONDS, _SECONDS))
    resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY, _MEMORY))
    picture = still(sys.argv[1], sys.stdin.buffer.read())
    if picture is None:
        return 1
    sys.stdout.buffer.write(picture)
    return 0


if __name__ == "__main__":
    sys.exit(main())
