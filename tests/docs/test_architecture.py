"""The walks of the architecture page are the code's: every function they name is there."""

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "xbyte_live"
PAGE = PACKAGE / "docs" / "architecture.md"
STEPS = sorted(set(re.findall(r"`([\w/]+\.(?:py|ts)):([\w.]+)`", PAGE.read_text("utf-8"))))


def names_in_python(file: Path) -> set[str]:
    found = set()
    for node in ast.parse(file.read_text("utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            inside = (
                one for one in node.body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)
            )
            found |= {f"{node.name}.{one.name}" for one in inside}
    return found


def names_in_typescript(file: Path) -> set[str]:
    found, owner = set(), ""
    for line in file.read_text("utf-8").splitlines():
        if top := re.match(r"(?:export )?(?:abstract )?(class|(?:async )?function) (\w+)", line):
            owner = top[2] if top[1] == "class" else ""
            found.add(top[2])
        elif owner and (method := re.match(r"  (?:async )?(\w+)(?:<.*>)?\(", line)):
            found.add(f"{owner}.{method[1]}")
    return found


def test_there_are_five_walks() -> None:
    walks = PAGE.read_text("utf-8").partition("## Five walks")[2].split("\n### ")[1:]
    assert [len(re.findall(r"`[\w/]+\.(?:py|ts):", walk)) > 5 for walk in walks] == [True] * 5


@pytest.mark.parametrize(("file", "name"), STEPS, ids=[f"{file}:{name}" for file, name in STEPS])
def test_a_step_of_a_walk_is_there(file: str, name: str) -> None:
    path = PACKAGE / file
    names = names_in_python(path) if path.suffix == ".py" else names_in_typescript(path)
    assert name in names
