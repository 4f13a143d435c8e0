"""One case of the transparency property: a chain, how each hop moves bytes, which hops have the library, what is asked."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

from hypothesis import strategies as st

from odb.servers.flags import FRESH, GATHER, INTO, MEMORY, READINESS, RECEIVE, SCATTER, SEND, WITHOUT_LOOP

PAGE = 4096
SIZE_MAX = 1 << 20
BREAKING = ("cut", "abandon", "quit")
"""Kinds that end a connection with something left over: bytes may get lost on purpose then."""


@dataclass(frozen=True)
class Hop:
    """One process of the chain. options: None without the library, else what differs from its defaults."""

    flags: tuple[str, ...]
    options: Mapping[str, str] | None


@dataclass(frozen=True)
class Case:
    """hops: FE, 1 to 3 IS, BE. kinds and sizes are used in turn."""

    hops: tuple[Hop, ...]
    kinds: tuple[str, ...]
    sizes: tuple[int, ...]
    count: int
    concurrency: int
    pipeline: int
    close: bool
    chunked: bool
    seed: int

    def classic(self) -> Case:
        """The same without the library anywhere: what must come out."""
        return replace(self, hops=tuple(replace(hop, options=None) for hop in self.hops))

    def dumps(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":"))

    @staticmethod
    def loads(text: str) -> Case:
        data = json.loads(text)
        data["hops"] = tuple(Hop(tuple(hop["flags"]), hop["options"]) for hop in data["hops"])
        return Case(**{**data, "kinds": tuple(data["kinds"]), "sizes": tuple(data["sizes"])})

    def client_words(self) -> list[str]:
        words = [f"--kind={kind}" for kind in self.kinds] + [f"--size={size}" for size in self.sizes]
        words += [f"--count={self.count}", f"--concurrency={self.concurrency}", f"--pipeline={self.pipeline}"]
        return words + (["--close"] if self.close else [])


# Around page borders, around what is sent as a descriptor, and anything.
SIZES = st.one_of(
    st.sampled_from([0, 1, 4095, 4096, 4097, 8191, 8192, 8193, 65536, 262144, SIZE_MAX]),
    st.builds(lambda pages, off: max(0, pages * PAGE + off), st.integers(0, 64), st.integers(-2, 2)),
    st.builds(
        lambda pages, off: min(SIZE_MAX, pages * PAGE + off), st.integers(64, 256), st.integers(0, 4095)
    ),
    st.integers(0, 300_000),
)
BUFFERS = st.one_of(
    st.sampled_from([PAGE, 8192, 16384, 65536, 131072, 1 << 20]),
    st.integers(1, 3 * PAGE).map(lambda size: max(size, 97)),
    st.integers(PAGE, 200_000),
)
WIDE = st.one_of(st.sampled_from([65536, 131072, 1 << 20]), st.integers(65536, 300_000))
OFFSETS = st.one_of(st.sampled_from([0, 0, 0, 1, 16, 32, 2048, 4095]), st.integers(0, 4095))
CHUNKS = st.one_of(
    st.just(0), st.just(0), st.just(0), st.sampled_from([4096, 8192, 65536]), st.integers(500, 100_000)
)
# What options are drawn from; what is named twice is likelier.
CHOICES: Mapping[str, tuple[str, ...]] = {
    "mode": ("ports", "ports", "standalone"),
    "strategy": ("direct", "direct", "anticipated", "dynamic", "static"),
    "align": ("on", "off"),
    "delivery": ("learn", "window", "window", "fetch"),
    "readiness": ("inject", "level"),
    "virtual_min": ("8192", "4096", "4096", "4096", "65536"),
    "coalesce": ("on", "on", "off"),
    "splice": ("on", "on", "off"),
    "capture": ("file,memory", "file,memory", "file,memory", "file", "memory"),
    "fault_chunk": ("1048576", "4096", "65536"),
    "store_max": ("268435456", "268435456", "268435456", "100000"),
    "channels_max": ("64", "64", "1"),
    "align_min": ("4096", "4096", "65536"),
}
UNALIGNED = ("4096", "0", "100", "5000", "70000")


def drawn_options(number: int) -> Mapping[str, str]:
    """The options of this number: every one drawn for itself; 0 is whatever the defaults are."""
    if number == 0:
        return {}
    rng = random.Random(number)
    drawn = {name: rng.choice(values) for name, values in CHOICES.items()}
    if drawn["strategy"] == "static":
        drawn["unaligned_size"] = rng.choice(UNALIGNED)
    return drawn


@st.composite
def flags(draw: st.DrawFn, lively: bool = False) -> tuple[str, ...]:
    """How one hop moves bytes; a lively one offers whole buffers that are large enough for descriptors."""
    receive, readiness = draw(st.sampled_from(RECEIVE)), draw(st.sampled_from(READINESS))
    send = draw(st.sampled_from([each for each in SEND if each != "sendall" or readiness in WITHOUT_LOOP]))
    words = [f"--receive={receive}", f"--send={send}", f"--readiness={readiness}"]
    words += [f"--buffer={draw(WIDE if lively else BUFFERS)}", f"--offset={draw(OFFSETS)}"]
    # Half of all hops take and give as much as there is: only then do descriptors cover whole buffers.
    tame = lively or draw(st.booleans())
    for name in ("receive-chunk", "send-chunk"):
        if not tame and (chunk := draw(CHUNKS)):
            words.append(f"--{name}={chunk}")
    if chunk := draw(st.sampled_from([0, 0, 1, 7, 100, 1000])):
        words.append(f"--head-chunk={chunk}")
    if receive in INTO and draw(st.booleans()):
        words.append("--fill")
    if draw(st.integers(0, 3)) == 0:
        words.append(f"--memory={draw(st.sampled_from(MEMORY))}")
    if receive in INTO and draw(st.integers(0, 3)) == 0:
        words.append(f"--buffers={draw(st.integers(2, 4))}")
    if not lively and (receive in SCATTER or send in GATHER) and draw(st.booleans()):
        words.append(f"--vectors={draw(st.integers(2, 20))}")
    if not tame and draw(st.integers(0, 2)) == 0:
        words.append("--recycle")
    # Small buffers of the kernel cut frames anywhere.
    if not lively and draw(st.integers(0, 3)) == 0:
        words.append(f"--send-buffer={draw(st.sampled_from([8192, 20000, 50000]))}")
    if touch := draw(st.sampled_from([0, 0, 0, 0.05, 0.5, 1])):
        words.append(f"--touch={touch}")
        if receive not in FRESH and draw(st.booleans()):
            words.append("--overwrite")
    return tuple(words)


@st.composite
def cases(draw: st.DrawFn, first: int, span: int) -> Case:
    """Any case whose options are the defaults or of the numbers [first, first + span).

    Every other one is lively: all hops have the library, and what is asked for and how it is sent makes descriptors likely.
    """
    numbers = st.sampled_from([0, *range(first, first + span)])
    common = drawn_options(draw(numbers))
    lively = draw(st.booleans())
    mixed = draw(st.integers(0, 3)) == 0

    def hop() -> Hop:
        if not lively and draw(st.integers(0, 4)) == 0:
            return Hop(draw(flags()), None)
        return Hop(draw(flags(lively)), drawn_options(draw(numbers)) if mixed else common)

    hops = tuple(hop() for _ in range(2 + draw(st.integers(1, 3))))
    bound = min(SIZE_MAX, 400 * min(map(_smallest, hops)))
    first_kind = [draw(st.sampled_from(["get", "echo"]))] if lively else []
    first_size = [draw(st.integers(100_000, SIZE_MAX))] if lively else []
    kinds = st.sampled_from(
        ["get", "get", "get", "range", "echo", "echo", "digest", "head", "missing", *BREAKING, "half"]
    )
    return Case(
        hops=hops,
        kinds=tuple(first_kind + draw(st.lists(kinds, min_size=1 - lively, max_size=2))),
        sizes=tuple(
            min(size, bound) for size in first_size + draw(st.lists(SIZES, min_size=1 - lively, max_size=2))
        ),
        count=draw(st.one_of(st.integers(1, 8), st.integers(8, 30))),
        concurrency=draw(st.sampled_from([1, 1, 2, 3, 8])),
        pipeline=draw(st.sampled_from([1, 1, 2, 4])),
        close=draw(st.integers(0, 3)) == 0,
        chunked=not lively and draw(st.integers(0, 5)) == 0,
        seed=draw(st.integers(0, 9)),
    )


def _smallest(hop: Hop) -> int:
    """The fewest bytes that this hop moves by one call, so that no case takes a million of them."""
    values = [word.partition("=") for word in hop.flags]
    return min(
        int(value) for name, _, value in values if name in {"--buffer", "--receive-chunk", "--send-chunk"}
    )
