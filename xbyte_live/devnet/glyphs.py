"""Adapter: writes digits into the picture of a video frame, on a dark plate."""

from av.video.frame import VideoFrame

_GLYPHS = {
    "0": "0111010001100111010111001100010111000000",
    "1": "0010001100001000010000100001000111000000",
    "2": "0111010001000010001000100010001111100000",
    "3": "1111100010001000001000001100010111000000",
    "4": "0001000110010101001011111000100001000000",
    "5": "1111110000111100000100001100010111000000",
    "6": "0011001000100001111010001100010111000000",
    "7": "1111100001000100010001000010000100000000",
    "8": "0111010001100010111010001100010111000000",
    "9": "0111010001100010111100001000100110000000",
    ":": "0000000100001000000000100001000000000000",
    ".": "0000000000000000000000000001000010000000",
}  # five columns, eight rows
_INK, _SHADE = b"\xeb", b"\x18"


def burn(frame: VideoFrame, text: str, *, left: int, top: int, dot: int) -> None:
    """Write digits, colons and points into the luma of a frame, each dot ``dot`` pixels wide."""
    plane = frame.planes[0]
    pixels = memoryview(plane).cast("B")
    ink, shade = _INK * dot, _SHADE * dot
    for row in range(-1, 8):
        shown = (_GLYPHS[c][row * 5 : row * 5 + 5] if row >= 0 else "00000" for c in text)
        dots = "0" + "0".join(shown) + "0"
        line = b"".join(ink if one == "1" else shade for one in dots)
        for y in range(top + (row + 1) * dot, top + (row + 2) * dot):
            at = y * plane.line_size + left
            pixels[at : at + len(line)] = line
