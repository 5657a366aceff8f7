"""Pure: draws a running clock, ``HH:MM:SS:FF``, as brightness and opacity of its pixels."""

import math
from functools import partial
from itertools import chain

_Segment = tuple[float, float, float, float]

# a slanted seven-segment digit in a box one wide and two high; x1 y1 x2 y2
_GAP = 0.09
_BARS: dict[str, _Segment] = {
    "a": (_GAP, 0, 1 - _GAP, 0),
    "b": (1, _GAP, 1, 1 - _GAP),
    "c": (1, 1 + _GAP, 1, 2 - _GAP),
    "d": (_GAP, 2, 1 - _GAP, 2),
    "e": (0, 1 + _GAP, 0, 2 - _GAP),
    "f": (0, _GAP, 0, 1 - _GAP),
    "g": (_GAP, 1, 1 - _GAP, 1),
}
_DIGITS = ["abcdef", "bc", "abdeg", "abcdg", "bcfg", "acdfg", "acdefg", "abc", "abcdefg", "abcdfg"]
_COLON: tuple[_Segment, ...] = ((0.5, 0.6, 0.5, 0.6), (0.5, 1.4, 0.5, 1.4))

_SLANT, _STROKE = 0.12, 0.115
_PLATE_OPACITY = 0.5


class ClockFace:
    """A dark translucent plate with bright digits, about ``height`` pixels high.

    ``width`` and ``height`` are even. Time runs at ``rate`` frames a second.
    """

    def __init__(self, height: int, rate: int) -> None:
        self._rate = rate
        unit = height / 3.4  # half a digit's height, and its width
        padding = round(unit * 0.75)
        digit, colon = round(unit * 1.75), round(unit * 0.95)
        columns = 2 * padding + 8 * digit + 3 * colon
        self.width, self.height = columns + columns % 2, height + height % 2
        shapes = [[_BARS[bar] for bar in bars] for bars in _DIGITS]
        draw = partial(self._cell, unit=unit, left=0.4)
        self._digits = [draw(shape, columns=digit) for shape in shapes]
        self._colon = self._cell(_COLON, unit=unit, columns=colon, left=0.0)
        self._edges = self._plate_edge(padding), self._plate_edge(self.width - columns + padding)

    def draw(self, frame: int) -> tuple[bytes, bytes]:
        """Brightness (16 to 235) and opacity (0 to 255) of every pixel, row by row."""
        seconds, part = divmod(frame, self._rate)
        minutes, second = divmod(seconds, 60)
        hour, minute = divmod(minutes, 60)
        cells: list[list[bytes]] = []
        for value in (hour % 100, minute, second, part):
            cells += [self._digits[value // 10], self._digits[value % 10], self._colon]
        left, right = self._edges
        opacity = b"".join(
            chain.from_iterable(
                (left[y], *(cell[y] for cell in cells[:-1]), right[y][::-1])
                for y in range(self.height)
            )
        )
        return opacity.translate(_BRIGHTNESS), opacity

    def _cell(
        self, shape: "list[_Segment] | tuple[_Segment, ...]", *, unit: float, columns: int, left: float
    ) -> list[bytes]:
        """Rows of opacity of one character on the plate, edges smooth."""
        top = (self.height / unit - 2) / 2
        rows = []
        for row in range(self.height):
            y = (row + 0.5) / unit - top
            line = bytearray()
            for column in range(columns):
                x = (column + 0.5) / unit - left + (y - 1) * _SLANT
                distance = min(_distance(x, y, segment) for segment in shape)
                ink = min(max((_STROKE - distance) * unit + 0.5, 0.0), 1.0)
                line.append(round(255 * max(ink, _PLATE_OPACITY)))
            rows.append(bytes(line))
        return rows

    def _plate_edge(self, columns: int) -> list[bytes]:
        """Rows of opacity of the left edge of the plate, its corners round."""
        radius = min(columns, self.height / 2)
        rows = []
        for row in range(self.height):
            dy = max(radius - row - 0.5, row + 0.5 - (self.height - radius), 0.0)
            covered = (
                min(max(radius - math.hypot(max(radius - x - 0.5, 0.0), dy) + 0.5, 0.0), 1.0)
                for x in range(columns)
            )
            rows.append(bytes(round(255 * _PLATE_OPACITY * part) for part in covered))
        return rows


def _distance(x: float, y: float, segment: _Segment) -> float:
    x1, y1, x2, y2 = segment
    length = (x2 - x1) ** 2 + (y2 - y1) ** 2
    along = 0.0 if not length else ((x - x1) * (x2 - x1) + (y - y1) * (y2 - y1)) / length
    along = min(max(along, 0.0), 1.0)
    return math.hypot(x - x1 - along * (x2 - x1), y - y1 - along * (y2 - y1))


# what is more opaque than the plate is ink, and the more so the brighter
_PLATE = round(255 * _PLATE_OPACITY)
_BRIGHTNESS = bytes(
    16 + round(219 * max(opacity - _PLATE, 0) / (255 - _PLATE)) for opacity in range(256)
)
