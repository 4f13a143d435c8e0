"""What each mechanism of the library is worth: variants that differ from one variant in the value of one option.

They come from the library's own table of options, so that a new switch is a new row: a flag is turned round, an option
that is one of several words takes each other word, one that is a set of words loses each of them.  `ablations.toml`
leaves some out and gives values for options that are numbers.
"""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from odb import config
from odb.errors import ConfigError
from odb.tables import Option, OptionTable, option_table
from testbed.errors import UsageError
from testbed.spec import Variant

ABLATIONS_FILE = Path(__file__).with_name("ablations.toml")


@dataclass(frozen=True, slots=True)
class Ablation:
    """A variant that differs from another in one option; its label is `option=value`, a `+` between words of a set."""

    option: str
    value: str
    variant: Variant

    @property
    def label(self) -> str:
        """What its row is called."""
        return f"{self.option}={self.value.replace(',', '+')}"


def ablated(
    variant: Variant, *, file: Path = ABLATIONS_FILE, table: OptionTable | None = None
) -> tuple[Ablation, ...]:
    """Every ablation of a variant with the library, in the order of the table of options.

    UsageError names file, key and value where the file says something that the table does not know.
    """
    options = table or option_table()
    leave, values = _read(file, options)
    assignments = [f"{key}={value}" for key, value in variant.options.items()]
    try:
        now = config.load(profile=variant.profile, assignments=assignments, table=options)
    except ConfigError as error:
        raise UsageError(f"variant {variant.name!r}", str(error)) from None
    return tuple(
        Ablation(
            option.name,
            value,
            replace(
                variant,
                name=f"{option.name}={value}",
                description=f"{variant.name} with {option.name} = {value}",
                options={**variant.options, option.name: value},
            ),
        )
        for option in options.options.values()
        if option.name not in leave
        for value in (*_others(option, now[option.name]), *values.get(option.name, ()))
        if config.canonical(option, value, str(file)) != now[option.name]
    )


def _others(option: Option, now: str) -> Iterator[str]:
    """The values of a switch beside the present one; none for an option that is no switch."""
    if option.kind == "flag":
        yield "off" if now == "on" else "on"
    elif option.kind == "enum":
        yield from (word for word in option.words if word != now)
    elif option.kind == "set":
        words = now.split(",")
        if len(words) > 1:
            yield from (",".join(other for other in words if other != word) for word in words)


def _read(file: Path, table: OptionTable) -> tuple[frozenset[str], Mapping[str, Sequence[str]]]:
    """Which options are left out, and which values others take."""
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {file}", error.strerror or str(error)) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} is not valid TOML", str(error)) from error
    unknown = sorted(set(content) - {"leave", "values"})
    if unknown:
        raise UsageError(f"{file}: there is no key {unknown[0]!r}", "known keys are leave, values")
    leave, values = content.get("leave", []), content.get("values", {})
    if not _texts(leave):
        raise UsageError(f"{file}: leave is {leave!r}", "write a list of names of options")
    if not isinstance(values, dict):
        raise UsageError(f"{file}: values is {values!r}", "write a table of options with lists of values")
    for name in (*leave, *values):
        if name not in table.options:
            raise UsageError(f"{file}: there is no option {name!r}", "see 'odb options'")
    for name, given in values.items():
        if not _texts(given):
            raise UsageError(f"{file}: values.{name} is {given!r}", "write a list of texts")
        for value in given:
            try:
                config.canonical(table.options[name], value, f"{file}: values")
            except ConfigError as error:
                raise UsageError(str(error)) from None
    return frozenset(leave), values


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)
