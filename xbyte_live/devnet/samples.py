"""Adapter: sample media made on the spot: two videos with a burnt-in clock, and some music."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.audio.frame import AudioFrame
from av.filter import Graph
from av.video.frame import VideoFrame

from xbyte_live.errors import DevnetError

FPS = 30
WIDTH, HEIGHT = 1280, 720
LOOP_S = (
    20  # the pictures repeat after so long, unnoticed: every motion has a whole number of turns
)
RATE = 48_000
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


@dataclass(frozen=True, slots=True)
class Sample:
    """A piece of footage: ``pictures`` are FFmpeg expressions for Y, Cb and Cr, or nothing.

    ``chords`` are lists of frequencies in Hz, each held for ``bar`` seconds.
    """

    slug: str
    name: str
    chords: tuple[tuple[float, ...], ...]
    bar: float
    pictures: tuple[str, str, str] | None = None

    @property
    def file_name(self) -> str:
        """The name of its file."""
        return f"{self.slug}.{'mp4' if self.pictures else 'm4a'}"


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


def _turns(count: int) -> str:
    """An angle that makes ``count`` whole turns while the pictures repeat once."""
    return f"(T*2*PI*{count}/{LOOP_S})"


def _curtain(waves: int, turns: int, height: float, swing: float, phase: float) -> str:
    """A band of light that sways, brighter here and there."""
    middle = f"({height}+{swing}*sin(X/W*{waves}+{_turns(turns)}+{phase}))"
    rays = f"(0.65+0.35*sin(X/W*{5 * waves}+{_turns(2 * turns)}+{phase}))"
    return f"exp(-pow((Y/H-{middle})*7,2))*{rays}"


def _body(orbit: float, turns: int, phase: float, size: float) -> str:
    """A glowing ball on an ellipse around the middle, at most 1."""
    x = f"W/2+{orbit}*W*cos({_turns(turns)}+{phase})"
    y = f"H/2+{orbit * 0.55}*W*sin({_turns(turns)}+{phase})"
    return f"min(1,{size}/(0.4+pow(X-{x},2)+pow(Y-({y}),2)))"


def _aurora() -> tuple[str, str, str]:
    green, blue, violet = (
        _curtain(5, 1, 0.42, 0.13, 0),
        _curtain(4, -1, 0.55, 0.16, 2),
        _curtain(7, 1, 0.33, 0.10, 4),
    )
    return (
        f"clip(18+30*(1-Y/H)+150*{green}+105*{blue}+80*{violet},16,235)",
        f"clip(150-48*{green}+10*{blue}+34*{violet},16,240)",
        f"clip(118-60*{green}-30*{blue}+40*{violet},16,240)",
    )


def _orbit() -> tuple[str, str, str]:
    sun = "min(1,26/(1.4+pow(X-W/2,2)+pow(Y-H/2,2)))"
    inner, middle, outer = _body(0.15, 4, 0, 4), _body(0.25, 2, 2, 6), _body(0.37, 1, 4, 5)
    return (
        f"clip(20+210*{sun}+150*{inner}+150*{middle}+160*{outer},16,235)",
        f"clip(142-90*{sun}+60*{inner}-46*{middle}+30*{outer},16,240)",
        f"clip(128+50*{sun}-50*{inner}+62*{middle}+44*{outer},16,240)",
    )


SAMPLES: tuple[Sample, ...] = (
    Sample(
        slug="aurora",
        name="Aurora",
        chords=((110, 220, 277.2, 329.6), (92.5, 185, 277.2, 370), (123.5, 247, 293.7, 370)),
        bar=4,
        pictures=_aurora(),
    ),
    Sample(
        slug="orbit",
        name="Orbit",
        chords=((98, 196, 246.9, 293.7), (130.8, 261.6, 329.6, 392), (87.3, 174.6, 261.6, 349.2)),
        bar=5,
        pictures=_orbit(),
    ),
    Sample(
        slug="nightwalk",
        name="Nightwalk",
        chords=(
            (110, 261.6, 329.6, 493.9),
            (87.3, 261.6, 349.2, 440),
            (130.8, 246.9, 329.6, 392),
            (98, 246.9, 293.7, 440),
        ),
        bar=4,
    ),
)


def make_sample(sample: Sample, path: Path, *, seconds: int = 60) -> None:
    """Write a sample to ``path``: MP4 with H.264 and AAC, or M4A.

    Keyframes come every 2 s, with B-frames between them. Raises ``DevnetError``.
    """
    try:
        with av.open(str(path), "w", format="mp4") as output:
            output.metadata["title"] = sample.name
            output.metadata["artist"] = "xByte Live"
            _write(output, sample, seconds)
    except (av.FFmpegError, OSError) as error:
        path.unlink(missing_ok=True)
        raise DevnetError(f"the sample {sample.name} could not be made: {error}") from None


def _write(output: av.container.OutputContainer, sample: Sample, seconds: int) -> None:
    sound = output.add_stream("aac", rate=RATE, options={"b": "128k"})
    music = _music(sample, seconds)
    if sample.pictures is None:
        for heard in music:
            output.mux(sound.encode(heard))
        output.mux(sound.encode(None))
        return
    keyframes = {"g": str(2 * FPS), "keyint_min": str(2 * FPS)}
    options = {"preset": "ultrafast", "crf": "26", "bf": "2", **keyframes}
    picture = output.add_stream("libx264", rate=FPS, options=options)
    picture.width, picture.height, picture.pix_fmt = WIDTH, HEIGHT, "yuv420p"
    for number, seen in enumerate(_pictures(sample.pictures, seconds)):
        output.mux(picture.encode(seen))
        for heard in music:
            output.mux(sound.encode(heard))
            if heard.pts is not None and heard.pts * FPS > number * RATE:
                break
    output.mux(picture.encode(None))
    for heard in music:
        output.mux(sound.encode(heard))
    output.mux(sound.encode(None))


def _pictures(expressions: tuple[str, str, str], seconds: int) -> Iterator[VideoFrame]:
    """Drawn small and seldom, since they are smooth; made large and fluent by FFmpeg."""
    y, cb, cr = expressions
    graph = Graph()
    _chain(
        graph,
        ("color", f"c=black:s=64x36:r=10:d={LOOP_S}"),
        ("format", "yuv420p"),
        ("geq", f"lum='{y}':cb='{cb}':cr='{cr}'"),
        ("loop", f"loop=-1:size={LOOP_S * 10}"),
        ("framerate", f"fps={FPS}"),
        ("scale", f"{WIDTH}:{HEIGHT}:flags=bicubic"),
        ("noise", "c0s=4:c0f=t"),  # without a little grain, smooth colours show steps
        ("buffersink", ""),
    )
    for number in range(seconds * FPS):
        frame = graph.vpull()
        _burn_clock(frame, number)
        frame.pts, frame.time_base = number, Fraction(1, FPS)
        frame.pict_type = av.video.frame.PictureType.NONE
        yield frame


def _music(sample: Sample, seconds: int) -> Iterator[AudioFrame]:
    """The chords, one after another, each dying away, a little apart left and right."""
    graph = Graph()
    left, right = (_voice(sample, detune) for detune in (1.0, 1.003))
    _chain(
        graph,
        ("aevalsrc", f"exprs='{left}|{right}':s={RATE}:d={seconds}:c=stereo"),
        ("aecho", "0.8:0.6:310|470:0.35|0.22"),
        ("atrim", f"end={seconds}"),
        ("lowpass", "f=2800"),
        ("afade", "t=in:d=2"),
        ("afade", f"t=out:st={seconds - 3}:d=3"),
        ("aformat", "sample_fmts=fltp:channel_layouts=stereo"),
        ("asetnsamples", "n=1024:p=0"),
        ("abuffersink", ""),
    )
    at = 0
    while True:
        try:
            frame = graph.pull()
        except (av.EOFError, av.BlockingIOError):
            return
        assert isinstance(frame, AudioFrame)  # an audio sink gives nothing else
        frame.pts, frame.time_base = at, Fraction(1, RATE)
        at += frame.samples
        yield frame


def _voice(sample: Sample, detune: float) -> str:
    """One channel: a chord is chosen by the time, its notes are struck one after another."""
    count = len(sample.chords)
    notes = []
    for voice in range(len(sample.chords[0])):
        pitch = "0"
        for index, chord in enumerate(sample.chords):
            pitch = f"if(eq(ld(0),{index}),{chord[voice] * detune:.3f},{pitch})"
        struck = f"mod(t+{sample.bar}-{voice}*{sample.bar / 8},{sample.bar})"
        notes.append(f"sin(2*PI*t*({pitch}))*exp(-{struck}*0.8)*min(1,{struck}*12)")
    return f"st(0,mod(floor(t/{sample.bar}),{count}));0.16*(" + "+".join(notes) + ")"


def _chain(graph: Graph, *steps: tuple[str, str]) -> None:
    last = None
    for name, arguments in steps:
        step = graph.add(name, arguments.replace(" ", "")) if arguments else graph.add(name)
        if last is not None:
            last.link_to(step)
        last = step
    graph.configure()


def _burn_clock(frame: VideoFrame, number: int) -> None:
    """Write ``HH:MM:SS:FF`` into a frame."""
    seconds, frames = divmod(number, FPS)
    text = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}:{frames:02}"
    burn(frame, text, left=40, top=40, dot=6)


if __name__ == "__main__":  # the demo makes each sample in a process of its own
    slug, target = sys.argv[1:]
    make_sample(next(sample for sample in SAMPLES if sample.slug == slug), Path(target))
