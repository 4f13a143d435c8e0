"""Turns the JSON vectors into a C header, so that the native tests need no JSON parser.

Usage: to_c.py OUTPUT. The header is self-contained beside wire/*.h: per kind an array `vectors_KIND`, and for kinds
with fields a function `vector_same_KIND` that compares them one by one.
"""

import json
import sys
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any

SPECIAL = ("crc8", "crc32c", "hello_prefix", "release", "stream")

PROLOGUE = """\
/* Written by tests/vectors/to_c.py from the JSON files beside it. */
#ifndef ODB_TESTS_VECTORS_H
#define ODB_TESTS_VECTORS_H

#include <stdbool.h>
#include <string.h>

#include "wire/descriptor.h"
#include "wire/header.h"
#include "wire/hello.h"
#include "wire/hint.h"
#include "wire/message.h"
#include "wire/stream_decoder.h"

struct vector_crc { const char *name; const uint8_t *bytes; size_t size; uint32_t value; };
struct vector_hello_prefix { const char *name; const uint8_t *bytes; size_t size; bool could_be; };
struct vector_release {
    const char *name; const uint8_t *bytes; size_t size; enum odb_wire_result result;
    const uint64_t *payloads; size_t count;
};
struct vector_stream {
    const char *name; bool hello_first; const uint8_t *bytes; size_t size;
    const struct odb_wire_event *events; size_t count; bool boundary;
};
"""


def quoted(data: bytes) -> str:
    return '(const uint8_t *)"' + "".join(f"\\x{byte:02x}" for byte in data) + '"'


def result(text: str) -> str:
    return "ODB_WIRE_" + text.upper().replace(" ", "_")


def array(name: str, value: int | str) -> bytes | None:
    """The bytes of a field that is an array in C, or None for integers."""
    if isinstance(value, int):
        return None
    return IPv6Address(value).packed if name == "address" else bytes.fromhex(value)


def field(name: str, value: int | str) -> str:
    data = array(name, value)
    if data is None:
        return f".{name} = {value}u" if int(value) < 2**31 else f".{name} = {value}ull"
    return f".{name} = {{{', '.join(str(byte) for byte in data)}}}"


def fields(values: dict[str, int | str]) -> str:
    return "{" + ", ".join(field(name, value) for name, value in values.items()) + "}"


def opening(case: dict[str, Any]) -> str:
    return f'.name = "{case["name"]}", .bytes = {quoted(bytes.fromhex(case["bytes"]))}, .size = {len(case["bytes"]) // 2}'


def event(item: list[Any]) -> str:
    kind, value = item
    prefix = f"{{.kind = ODB_WIRE_EVENT_{kind.upper()}, "
    if kind in ("real", "head", "tail"):
        return prefix + f".bytes = {quoted(bytes.fromhex(value))}, .length = {len(value) // 2}}}"
    if kind == "error":
        return prefix + f".result = {result(value)}}}"
    return prefix + f".{ {'virtual': 'descriptor'}.get(kind, kind) } = {fields(value)}}}"


def special_case(kind: str, case: dict[str, Any]) -> str:
    text = opening(case)
    if kind in ("crc8", "crc32c"):
        return f"{text}, .value = {case['value']}u"
    if kind == "hello_prefix":
        return f"{text}, .could_be = {str(case['could_be']).lower()}"
    if kind == "release":
        text += f", .result = {result(case['result'])}"
        payloads = case.get("fields", {}).get("payloads", [])
        if not payloads:
            return text
        listed = ", ".join(f"{payload}ull" for payload in payloads)
        return f"{text}, .payloads = (const uint64_t[]){{{listed}}}, .count = {len(payloads)}"
    text += (
        f", .hello_first = {str(case['hello_first']).lower()}, .boundary = {str(case['boundary']).lower()}"
    )
    if not case["events"]:
        return text
    listed = ", ".join(event(item) for item in case["events"])
    return f"{text}, .events = (const struct odb_wire_event[]){{{listed}}}, .count = {len(case['events'])}"


def special_table(kind: str, cases: list[dict[str, Any]]) -> str:
    struct = "crc" if kind.startswith("crc") else kind
    rows = "".join(f"    {{{special_case(kind, case)}}},\n" for case in cases)
    return f"static const struct vector_{struct} vectors_{kind}[] = {{\n{rows}}};\n"


def plain_table(kind: str, cases: list[dict[str, Any]]) -> str:
    sample = next(case["fields"] for case in cases if case["result"] == "ok")
    same = " &&\n           ".join(
        f"a->{name} == b->{name}"
        if array(name, value) is None
        else f"memcmp(a->{name}, b->{name}, sizeof a->{name}) == 0"
        for name, value in sample.items()
    )
    rows = "".join(
        f"    {{{opening(case)}, .result = {result(case['result'])}, .fields = {fields(case.get('fields', {}))}}},\n"
        for case in cases
    )
    return f"""\
struct vector_{kind} {{
    const char *name; const uint8_t *bytes; size_t size; enum odb_wire_result result; struct odb_wire_{kind} fields;
}};
static inline bool vector_same_{kind}(const struct odb_wire_{kind} *a, const struct odb_wire_{kind} *b) {{
    return {same};
}}
static const struct vector_{kind} vectors_{kind}[] = {{
{rows}}};
"""


def main() -> int:
    if len(sys.argv) != 2:
        print("usage: to_c.py OUTPUT", file=sys.stderr)
        return 2
    parts = [PROLOGUE]
    for path in sorted(Path(__file__).parent.glob("*.json")):
        document = json.loads(path.read_text(encoding="utf-8"))
        kind, cases = document["kind"], document["cases"]
        parts.append(special_table(kind, cases) if kind in SPECIAL else plain_table(kind, cases))
    Path(sys.argv[1]).write_text("\n".join([*parts, "#endif\n"]), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
