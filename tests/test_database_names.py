"""No module outside a database's folder names a database: not in code, strings, help texts or comments."""

import re
from pathlib import Path

import muvera_adapters
import muvera_core
from muvera_adapters import databases

PACKAGES = [Path(module.__file__).parent for module in (muvera_adapters, muvera_core)]
# "muvera_adapters.FOLDER.database:NAME" of every line of the registry
FOLDERS = sorted({line.split(".")[1] for line in databases._OURS.values()})
NAMES = re.compile("|".join(FOLDERS), re.IGNORECASE)

#: lines that may name one: file, pattern, reason
ALLOWED = [
    ("databases.py", r'    "[a-z-]+": "muvera_adapters\.[a-z]+\.database:[A-Z_]+",', "the registry"),
    ("databases.py", r'LOCAL = "[a-z-]+"', "the engine that measures samples"),
]


def _lines():
    for package in PACKAGES:
        for path in [*package.rglob("*.py"), *package.rglob("*.j2")]:
            place = path.relative_to(package)
            if package.name == "muvera_adapters" and place.parts[0] in FOLDERS:
                continue
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                yield place.as_posix(), number, line


def test_only_a_databases_folder_and_its_registry_line_name_it():
    found, used = [], set()
    for place, number, line in _lines():
        if not NAMES.search(line):
            continue
        allowed = [entry for entry in ALLOWED if entry[0] == place and re.fullmatch(entry[1], line)]
        used.update(allowed)
        if not allowed:
            found.append(f"{place}:{number}: {line.strip()}")
    assert not found, "\n".join(found)
    assert used == set(ALLOWED)


def test_no_folder_imports_another():
    folder = PACKAGES[0]
    for own in FOLDERS:
        others = [other for other in FOLDERS if other != own]
        for path in (folder / own).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            assert not [other for other in others if f"muvera_adapters.{other}" in text], path
