"""Writes docs/CONFIG.md from the tables of options and counters, so that the document cannot disagree with the code."""

from __future__ import annotations

from odb.config import Config
from odb.tables import Option, option_table, stat_docs

_HEAD = """\
# Configuration and statistics

This file is written by `make docs` from `odb/runtime/options.def` and `odb/runtime/stats.def`; a test holds it to them.

## Where a value comes from

`odb run` takes the defaults, then a profile (`--profile NAME`, or `profile = "NAME"` in the file), then a TOML file
(`--config FILE`), then single settings (`--set KEY=VALUE`, as often as needed); the later one wins. All of them are
checked before the program starts. The outcome is written to an *option file* (one `key = value` per line, named after its
content, in `/run/odb/options` for root, else below `XDG_RUNTIME_DIR` or in `/tmp/odb-UID`); the library finds it through the
environment variable `ODB_OPTIONS`. Without that variable, or with a file that it cannot read, the library does nothing.

```toml
# odb.toml
profile = "default"
listen = [":8080"]                 # who connects here may speak ODB
connect = ["10.0.0.0/24:8000-8010"] # who is connected to here speaks ODB
virtual_min = "16K"
align = true
```

```sh
odb options --config odb.toml --set virtual_min=32K   # what would hold, and why
odb run --config odb.toml --set virtual_min=32K -- nginx -g 'daemon off;'
```
"""

_RULES = """\
A *rule* is `[address[/prefix]][:port[-port]]`: `:8080`, `10.0.0.3:80`, `10.0.0.0/24:8000-8010`, `192.168.0.0/16`,
`[2001:db8::/32]:80`. Names are not resolved. Lists are separated by commas, or TOML lists.
Sizes are bytes and take the suffixes K, M and G (powers of 1024); times are milliseconds.
"""

_STATS = """\
Every process with the library keeps one page of counters, `<stats_dir>/<pid>.<start time>`, which is removed when it ends.
`odb stat` shows the pages of living processes, `odb stat --json` prints them:

```
{"schema": 1, "directory": DIR,
 "processes": [{"pid": N, "start_time": TICKS, "comm": NAME, "counters": {NAME: N, ...},
                "spans_forwarded": N, "bytes_avoided": N, "fallbacks": {REASON: N}}, ...],
 "totals": {"counters": {NAME: N, ...}, "spans_forwarded": N, "bytes_avoided": N, "fallbacks": {REASON: N}},
 "problems": [TEXT, ...]}
```

Two numbers are derived. `bytes_avoided` is `span_bytes_sent - payload_bytes_captured - fetch_bytes`, not below zero: what the
process passed on without ever holding it. `spans_forwarded` is what it sent in descriptors beyond its own payloads.
"""


def markdown() -> str:
    """The whole document."""
    table = option_table()
    parts = [
        _HEAD,
        "## Options\n",
        _RULES,
        "| option | default | possible | meaning |",
        "| --- | --- | --- | --- |",
    ]
    parts += [
        f"| `{option.name}` | {_code(_shown(option))} | {_possible(option)} | {option.doc} |"
        for option in table.options.values()
    ]
    parts += ["", "## Profiles\n", "| profile | sets | meaning |", "| --- | --- | --- |"]
    for profile in table.profiles.values():
        pairs = ", ".join(f"`{key} = {value}`" for key, value in profile.values.items())
        parts.append(f"| `{profile.name}` | {pairs or 'nothing'} | {profile.doc} |")
    parts += ["", "## Statistics\n", _STATS, "| counter | what it counts |", "| --- | --- |"]
    parts += [f"| `{name}` | {doc} |" for name, doc in stat_docs().items()]
    return "\n".join(parts) + "\n"


def possible(option: Option) -> str:
    """What may be written for an option, in a few words."""
    match option.kind:
        case "enum":
            return " or ".join(option.words)
        case "set":
            return "any of " + ", ".join(option.words)
        case "flag":
            return "on or off"
        case "size":
            return f"{size(option.minimum or 0)} to {size(option.maximum or 0)}"
        case "count":
            return f"{option.minimum} to {option.maximum}"
        case "ms":
            return f"{option.minimum} to {option.maximum} ms"
        case "rules":
            return "rules"
        case _:
            return "absolute path"


def size(value: int) -> str:
    """Bytes with the largest suffix that divides them."""
    for suffix, shift in (("G", 30), ("M", 20), ("K", 10)):
        if value and value % (1 << shift) == 0:
            return f"{value >> shift}{suffix}"
    return str(value)


def _shown(option: Option) -> str:
    return size(int(option.default)) if option.kind == "size" else option.default


def _possible(option: Option) -> str:
    return possible(option).replace("|", "\\|")


def _code(text: str) -> str:
    return f"`{text}`" if text else "empty"


def as_json(config: Config) -> dict[str, object]:
    """What `odb options --json` prints: each option with the value that holds, and the profiles."""
    table = option_table()
    return {
        "schema": 1,
        "options": [
            {
                "name": option.name,
                "kind": option.kind,
                "value": config[option.name],
                "source": config.settings[option.name].source,
                "default": option.default,
                "words": list(option.words),
                "minimum": option.minimum,
                "maximum": option.maximum,
                "doc": option.doc,
            }
            for option in table.options.values()
        ],
        "profiles": [
            {"name": profile.name, "values": dict(profile.values), "doc": profile.doc}
            for profile in table.profiles.values()
        ],
    }
