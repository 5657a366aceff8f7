"""Shell commands as the documentation writes them, taken apart into programs and their words."""

import re
import shlex
from dataclasses import dataclass

from tests.support.docs import Block

_INNER = re.compile(r"\$\(([^)]*)\)")
_SETTING = re.compile(r"[A-Z][A-Z0-9_]*=.*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Command:
    """One program with its words, and the variables set for it alone."""

    block: Block
    words: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()

    @property
    def program(self) -> str:
        return self.words[0]

    @property
    def is_ours(self) -> bool:
        return self.program.rpartition("/")[2] == "xbyte-live"

    def __str__(self) -> str:
        return f"{self.block}: {shlex.join(self.words)}"


def script(block: Block) -> str:
    """The commands of a block: all its lines, or of a transcript those after a ``$``."""
    if block.language != "console":
        return block.text
    lines = [line.removeprefix("$ ") for line in block.text.splitlines() if line.startswith("$ ")]
    return "\n".join(lines) + "\n"


def output(block: Block) -> list[str]:
    """The lines a transcript shows as output, empty ones left out."""
    return [line for line in block.text.splitlines() if line and not line.startswith("$ ")]


def commands(block: Block) -> list[Command]:
    """Every command of a block, those inside others first."""
    found: list[Command] = []
    for line in script(block).splitlines():
        for text in (*_INNER.findall(line), line):
            lexer = shlex.shlex(text, posix=True, punctuation_chars=True)
            lexer.whitespace_split = True
            words: list[str] = []
            for word in (*lexer, "&&"):
                if word not in ("&&", "|"):
                    words.append(word)
                elif words:
                    found.append(_command(block, words))
                    words = []
    return found


def _command(block: Block, words: list[str]) -> Command:
    if words[:2] == ["sudo", "-u"]:
        words = words[3:]
    env = []
    while len(words) > 1 and _SETTING.fullmatch(words[0]):
        name, _, value = words[0].partition("=")
        env.append((name, value))
        words = words[1:]
    return Command(block, tuple(words), tuple(env))
