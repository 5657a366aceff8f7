"""Pure: figures that add up: those of all processes of a server as one."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Name: TypeAlias = tuple[str, ...]  # of a figure, with its labels


@dataclass(frozen=True, slots=True)
class Tally:
    """``counts`` only ever grow, ``levels`` are what there is right now."""

    counts: Mapping[Name, float] = field(default_factory=dict)
    levels: Mapping[Name, float] = field(default_factory=dict)

    def of(self, name: str) -> Iterator[tuple[Name, float]]:
        """The labels and figures of one name."""
        for figures in (self.counts, self.levels):
            for (own, *labels), figure in figures.items():
                if own == name:
                    yield tuple(labels), figure

    def one(self, name: str) -> float:
        """The figure of a name without labels; 0 where there is none."""
        return self.counts.get((name,), 0) or self.levels.get((name,), 0)

    def counted(self) -> "Tally":
        """What stays of it when its process is no more."""
        return Tally(self.counts)

    def dump(self) -> bytes:
        """As JSON."""
        both = [[[*name, figure] for name, figure in f.items()] for f in (self.counts, self.levels)]
        return json.dumps(both, separators=(",", ":")).encode()


def total(tallies: Iterable[Tally]) -> Tally:
    """All of them together."""
    counts: Counter[Name] = Counter()
    levels: Counter[Name] = Counter()
    for tally in tallies:
        counts.update(tally.counts)
        levels.update(tally.levels)
    return Tally(counts, levels)


def load(data: bytes) -> Tally:
    """A tally from its JSON; raises ``ValueError``."""
    both: Any = json.loads(data)
    try:
        counts, levels = ({tuple(name): n for *name, n in figures} for figures in both)
    except (TypeError, ValueError):
        raise ValueError("no tally") from None
    return Tally(counts, levels)
