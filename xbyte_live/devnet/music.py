"""Adapter: composes a quiet piece of music as FFmpeg sound frames, with filters alone."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from av.audio.frame import AudioFrame
from av.filter import Graph

_SYNTH_RATE = 24_000  # nothing in it sounds higher, and it is half the work


@dataclass(frozen=True, slots=True)
class Song:
    """Four chords, each held for ``bar`` seconds: roots in hertz, and whether each is minor."""

    roots: tuple[float, float, float, float]
    minor: tuple[bool, bool, bool, bool]
    bar: float


def play(song: Song, *, seconds: int, rate: int) -> Iterator[AudioFrame]:
    """Frames of stereo sound at ``rate``, faded in and out, ``seconds`` long."""
    graph = Graph()
    steps = [
        ("aevalsrc", f"exprs='{_score(song)}':s={_SYNTH_RATE}:d={seconds}"),
        ("aresample", str(rate)),
        ("aformat", "sample_fmts=fltp:channel_layouts=mono"),
        ("pan", "stereo|c0=c0|c1=c0"),
        ("adelay", "0|14"),
        ("aecho", "0.8:0.7:290|430:0.35|0.22"),
        ("apulsator", "hz=0.11:amount=0.4"),
        ("volume", "8dB"),
        ("alimiter", "limit=0.9:level=false"),
        ("atrim", f"end={seconds}"),
        ("afade", "t=in:d=1.5"),
        ("afade", f"t=out:st={max(seconds - 3, 0)}:d=3"),
        ("aformat", "sample_fmts=fltp:channel_layouts=stereo"),
        ("abuffersink", ""),
    ]
    last = None
    for name, arguments in steps:
        node = graph.add(name, arguments or None)
        if last is not None:
            last.link_to(node)
        last = node
    graph.configure()
    with suppress(EOFError):
        while True:
            frame = graph.pull()
            assert isinstance(frame, AudioFrame)
            yield frame


def _score(song: Song) -> str:
    """The piece as an expression of ``t``: a pad, a bass and an arpeggio over four chords."""
    bar, note = song.bar, song.bar / 8
    roots = _by_bar(song.roots)
    thirds = _by_bar([1.1892 if minor else 1.2599 for minor in song.minor])
    # 0: the chord's root, 1: its third, 2: time in the bar, 3: time in the note, 4: the arpeggio
    setup = (
        f"st(5,mod(floor(t/{bar}),4));st(0,{roots});st(1,{thirds});"
        f"st(2,mod(t,{bar})/{bar});st(3,mod(t,{note}));st(6,mod(floor(t/{note}),8));"
        f"st(4,ld(0)*{_by_step()})"
    )
    swell = "pow(sin(PI*ld(2)),0.6)"
    pad = "+".join(
        f"sin(2*PI*t*ld(0)*{ratio}*{detune})"
        for ratio in ("2", "2*ld(1)", "2.9966")
        for detune in ("1.0012", "0.9988")
    )
    bass = "sin(2*PI*t*ld(0)+0.4*sin(4*PI*t*ld(0)))*exp(-1.6*ld(2))*min(1,ld(2)*90)"
    pluck = (
        "(sin(2*PI*t*ld(4)+1.1*exp(-9*ld(3))*sin(4*PI*t*ld(4)))+0.25*sin(4*PI*t*ld(4)))"
        f"*exp(-5*ld(3))*min(1,ld(3)*160)*min(1,({note}-ld(3))*160)"
    )
    return f"{setup};0.055*{swell}*({pad})+0.26*{bass}+0.16*{pluck}"


def _by_bar(values: "list[float] | tuple[float, ...]") -> str:
    a, b, c, d = values
    return f"if(lt(ld(5),2),if(lt(ld(5),1),{a},{b}),if(lt(ld(5),3),{c},{d}))"


def _by_step() -> str:
    """The arpeggio's eight notes, as multiples of the chord's root."""
    third, fifth = "ld(1)", "1.4983"
    notes = ["4", f"4*{fifth}", f"8*{third}", "8", f"4*{third}", f"4*{fifth}", "8", f"8*{third}"]
    chosen = notes[-1]
    for step in reversed(range(7)):
        chosen = f"if(eq(ld(6),{step}),{notes[step]},{chosen})"
    return chosen
