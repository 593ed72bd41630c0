"""The package's folders stay small, and a name means one thing."""

import ast
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("clay_publish", "producer", "catalog", "cards", "validate", "publish")
FILES = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]


def test_no_folder_lists_more_than_18_modules() -> None:
    sizes = Counter(path.parent.relative_to(ROOT).as_posix() for path in FILES if path.name != "__init__.py")
    assert {folder: size for folder, size in sizes.items() if size > 18} == {}


def test_no_class_name_occurs_twice() -> None:
    classes = Counter(
        node.name for path in FILES for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef)
    )
    assert [name for name, number in classes.items() if number > 1] == []


def test_no_two_modules_of_a_stage_differ_by_a_plural_s() -> None:
    for folder in FOLDERS:
        names = {path.stem for path in FILES if path.is_relative_to(ROOT / folder)}
        assert sorted(name for name in names if f"{name}s" in names) == []
