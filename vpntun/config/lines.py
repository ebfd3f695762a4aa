"""Parser for the sections and lines of a configuration file, as wg(8) and wg-quick(8) read it.

    # a comment, to the end of the line, wherever it begins
    [Section]
    Key = value

Only known sections and keys are accepted, in upper or lower case. Blanks in their names are ignored, and each may be
repeated. An error starts with FILE:LINE and never quotes a whole line, since that may contain a key. The meaning of the
keys is defined in file.py.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TypeVar

from vpntun.errors import ConfigurationError, VpntunError

T = TypeVar("T")
Known = Mapping[str, Collection[str]]
"""Names of the sections, each with the names of its keys, as messages write them."""

_SHOWABLE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,23}")  # too short for a misplaced key, which has 44 characters


@dataclass(frozen=True)
class Section:
    """One section. `values`: for each of its keys, the line number and text of every value, in order."""

    file: str
    line: int
    name: str
    values: dict[str, list[tuple[int, str]]]

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def every(self, key: str, parse: Callable[[str], T]) -> list[T]:
        """Parse every value of a key. The parser's errors are raised with file, line and key in front."""
        parsed = []
        for line, text in self.values.get(key, ()):
            try:
                parsed.append(parse(text))
            except VpntunError as error:
                raise type(error)(f"{self.file}:{line}: {key}: {error}") from None
        return parsed

    def last(self, key: str, parse: Callable[[str], T]) -> T | None:
        """Parse every value of a key, and return the last one; None if the key is not given."""
        parsed = self.every(key, parse)
        return parsed[-1] if parsed else None

    def error(self, text: str, key: str = "") -> ConfigurationError:
        """Return an error that names the line of a key, or of the section if the key is not given."""
        line = self.values[key][-1][0] if key in self.values else self.line
        return ConfigurationError(f"{self.file}:{line}: {text}")

    def followed_by(self, later: Section) -> Section:
        """Return both sections as one, as if the later one's lines were at the end of this one."""
        keys = dict.fromkeys([*self.values, *later.values])
        values = {key: self.values.get(key, []) + later.values.get(key, []) for key in keys}
        return Section(self.file, self.line, self.name, values)


def parse(text: str, file: str, known: Known) -> list[Section]:
    """Parse a file into its sections; `file` is its name in messages. Raises only ConfigurationError."""
    parser = _Parser(file, known)
    for number, line in enumerate(text.split("\n"), 1):
        content = line.partition("#")[0].strip()
        if content:
            parser.take(number, content)
    return parser.sections


class _Parser:
    """Line-by-line parser of a file; it is given the lines that are not empty."""

    def __init__(self, file: str, known: Known) -> None:
        self.sections: list[Section] = []
        self._file = file
        self._sections = {f"[{name}]".lower(): name for name in known}
        self._keys = {name: {key.lower(): key for key in keys} for name, keys in known.items()}

    def take(self, number: int, content: str) -> None:
        self._number = number
        if content.startswith("["):
            name = self._section("".join(content.split()))
            self.sections.append(Section(self._file, number, name, {}))
            return
        written, equals, value = content.partition("=")
        if not equals or not written:
            raise self._wrong("this line is neither [Section] nor Key = value; a comment begins with #")
        if not self.sections:
            raise self._wrong(f"this line comes before any section; begin with [{next(iter(self._keys))}]")
        key = self._key("".join(written.split()), self.sections[-1].name)
        self.sections[-1].values.setdefault(key, []).append((number, value.strip()))

    def _section(self, written: str) -> str:
        name = self._sections.get(written.lower())
        if name is None:
            what = f"section {written}" if _SHOWABLE.fullmatch(written.strip("[]")) else "such section"
            raise self._wrong(f"there is no {what}; {_suggest(written, [f'[{each}]' for each in self._keys])}")
        return name

    def _key(self, written: str, section: str) -> str:
        key = self._keys[section].get(written.lower())
        if key is not None:
            return key
        for other, keys in self._keys.items():
            if written.lower() in keys:
                raise self._wrong(f"{keys[written.lower()]} is not a key of [{section}]; it belongs in [{other}]")
        what = f"key {written}" if _SHOWABLE.fullmatch(written) else "such key"
        raise self._wrong(f"there is no {what} in [{section}]; {_suggest(written, self._keys[section].values())}")

    def _wrong(self, text: str) -> ConfigurationError:
        return ConfigurationError(f"{self._file}:{self._number}: {text}")


def _suggest(written: str, names: Collection[str]) -> str:
    """Suggest the name that is most similar to what was written, or list all names."""
    by_case = {name.lower(): name for name in names}
    close = difflib.get_close_matches(written[:32].lower(), by_case, n=1)
    return f"did you mean {by_case[close[0]]}?" if close else f"the known ones are {', '.join(names)}"
