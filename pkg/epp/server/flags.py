"""Flags as data, spelled and parsed as the Go programs of this field do.

``Flag`` describes one flag; ``add_flags`` gives an argparse parser every spelling of its history
(``--pool-name``, ``--poolName``, ``-poolName``); ``read_flags`` adds environment and defaults.
A value that cannot be parsed raises ConfigError right through argparse, naming flag and value.
"""

import argparse
import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from epp.errors import ConfigError

_NEGATIVE = re.compile(r"-\.?\d")


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """One flag.

    Attributes:
        name: ``pool-name``; the camelCase spelling of v0 is derived.
        help: One sentence or two, without the default.
        group: Heading in the help.
        parse: Text to value; raises ValueError with half a sentence.
        default: Value when nothing was given.
        default_text: The default as a user would write it.
        field: Field of ``Options``; None for a flag that only has to be accepted.
        metavar: Stand-in for the value in the help.
        env: Environment variable that replaces the default.
        env_lenient: An unusable environment value gives the default and a notice, not an error.
        switch: May be given without a value, meaning true.
        repeatable: May be given several times; the value is a tuple.
        accepted: The only values that this version can honour; None for all.
        refusal: Why other values are refused.
    """

    name: str
    help: str
    group: str
    parse: Callable[[str], object]
    default: object
    default_text: str = ""
    field: str | None = None
    metavar: str = "VALUE"
    env: str = ""
    env_lenient: bool = True
    switch: bool = False
    repeatable: bool = False
    accepted: tuple[object, ...] | None = None
    refusal: str = ""

    @property
    def spelling(self) -> str:
        """How the flag is written: two dashes, one for a letter."""
        return f"--{self.name}" if len(self.name) > 1 else f"-{self.name}"

    @property
    def dest(self) -> str:
        """Attribute of the argparse namespace; absent when the flag was not given."""
        return self.name.replace("-", "_")

    @property
    def aliases(self) -> tuple[str, ...]:
        """Other spellings: camelCase, and both with one dash as Go's own flag package allows."""
        camel = camel_case(self.name)
        names = [f"-{self.name}", f"--{self.name}", f"--{camel}", f"-{camel}"]
        return tuple(dict.fromkeys(name for name in names if name != self.spelling))


@dataclass(frozen=True, slots=True)
class Notice:
    """Something to log once logging is set up: an event and its fields."""

    event: str
    fields: Mapping[str, object]


def camel_case(name: str) -> str:
    """``pool-name`` to ``poolName``."""
    first, *rest = name.split("-")
    return first + "".join(word.capitalize() for word in rest)


def add_flags(parser: argparse.ArgumentParser, flags: Iterable[Flag]) -> None:
    """Add every flag, grouped. Aliases work but are not listed."""
    take_negative_values(parser)
    groups: dict[str, argparse._ArgumentGroup] = {}
    for flag in flags:
        if flag.group not in groups:
            groups[flag.group] = parser.add_argument_group(flag.group)
        group = groups[flag.group]
        _add(group, flag, (flag.spelling,), help_text=_help(flag))
        _add(group, flag, flag.aliases, help_text=argparse.SUPPRESS)


def take_negative_values(parser: argparse.ArgumentParser) -> None:
    """Let ``--drain-timeout -1s`` be a flag with a value, so that the value can be refused.

    argparse takes a word with a dash for a flag unless it is a whole negative number.
    """
    parser._negative_number_matcher = _NEGATIVE  # noqa: SLF001 - it has no other way


def _add(
    group: argparse._ArgumentGroup, flag: Flag, spellings: Sequence[str], *, help_text: str
) -> None:
    def parse(text: str) -> object:
        return _parse(flag, flag.spelling, text)

    common: dict[str, Any] = {
        "dest": flag.dest,
        "default": argparse.SUPPRESS,
        "type": parse,
        "help": help_text,
    }
    if flag.switch:
        group.add_argument(*spellings, metavar="BOOL", nargs="?", const=True, **common)
    else:
        action = "append" if flag.repeatable else "store"
        group.add_argument(*spellings, metavar=flag.metavar, action=action, **common)


def _help(flag: Flag) -> str:
    notes = [f"default: {flag.default_text}"] if flag.default_text else []
    notes += [f"environment: {flag.env}"] if flag.env else []
    text = f"{flag.help} ({'; '.join(notes)})" if notes else flag.help
    return text.replace("%", "%%")


def read_flags(
    flags: Iterable[Flag], namespace: argparse.Namespace, env: Mapping[str, str]
) -> tuple[dict[str, object], list[Notice]]:
    """Complete what argparse collected.

    Args:
        flags: The table that the parser was made from.
        namespace: What the parser returned.
        env: Environment variables.

    Returns:
        Values by field, and notices about environment values that were not used.

    Raises:
        ConfigError: This version cannot honour a value, or the environment holds a bad one.
    """
    values: dict[str, object] = {}
    notices: list[Notice] = []
    for flag in flags:
        value = _value(flag, namespace, env, notices)
        if flag.accepted is not None and value not in flag.accepted:
            raise ConfigError(flag.refusal, source=flag.spelling, value=_as_written(value))
        if flag.field is not None:
            values[flag.field] = value
    return values, notices


def _value(
    flag: Flag, namespace: argparse.Namespace, env: Mapping[str, str], notices: list[Notice]
) -> object:
    given = getattr(namespace, flag.dest, None)
    if given is not None:
        return tuple(given) if flag.repeatable else given
    if env.get(flag.env):
        return _parse_env(flag, env[flag.env], notices)
    return flag.default


def _as_written(value: object) -> object:
    return str(value).lower() if isinstance(value, bool) else value


def _parse_env(flag: Flag, text: str, notices: list[Notice]) -> object:
    try:
        return _parse(flag, flag.env, text)
    except ConfigError as exc:
        if not flag.env_lenient:
            raise
        notices.append(ignored_variable(flag.env, text, flag.default_text, exc.message))
        return flag.default


def ignored_variable(name: str, text: str, default_text: str, reason: str) -> Notice:
    """Notice of an environment value that cannot be used.

    Reference: GAIE v0.3.0 pkg/epp/util/env/env.go logs at info and goes on with the default.
    """
    fields = {"variable": name, "value": text, "reason": reason, "using": default_text}
    return Notice("environment variable ignored", fields)


def _parse(flag: Flag, source: str, text: str) -> object:
    try:
        return flag.parse(text)
    except ValueError as exc:
        raise ConfigError(str(exc), source=source, value=text) from exc


def one_of(*choices: str) -> Callable[[str], str]:
    """Parser of a word out of a few."""

    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}")
        return text

    return parse


def unknown_flag(argument: str, flags: Iterable[Flag]) -> ConfigError:
    """Error for an argument that no parser took, with the nearest flag when there is one."""
    word = argument.partition("=")[0]
    if not word.startswith("-"):
        return ConfigError("unexpected argument", source="command line", value=argument)
    spellings = {s.lstrip("-"): f.spelling for f in flags for s in (f.spelling, *f.aliases)}
    near = difflib.get_close_matches(word.lstrip("-"), spellings, n=1, cutoff=0.7)
    hint = f"; did you mean {spellings[near[0]]}?" if near else ""
    return ConfigError(f"unknown flag{hint}", source=word)
