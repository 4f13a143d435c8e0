"""Stacks of perf become folded stacks, and these a flame graph whose boxes are as wide as their shares."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest

from testbed.profiling import flame
from testbed.profiling.stacks import Frame, busiest, by_kind, folded, parse

pytestmark = pytest.mark.unit

SVG = "{http://www.w3.org/2000/svg}"
SCRIPT = """\
# a comment
nginx
\tffffffff81d335ff tcp_sendmsg ([kernel.kallsyms])
\tffffffff81000130 entry_SYSCALL_64_after_hwframe ([kernel.kallsyms])
\t           f82ad writev@@GLIBC_2.2.5 (/usr/lib/x86_64-linux-gnu/libc.so.6)
\t            1234 ngx_writev (/usr/sbin/nginx)
\t            1111 main (/usr/sbin/nginx)

nginx
\t            77aa odb_send (/opt/lib/libodb.so)
\t            1234 ngx_writev (/usr/sbin/nginx)
\t            1111 main (/usr/sbin/nginx)

nginx
\t            77aa odb_send (/opt/lib/libodb.so (deleted))
\t            1234 ngx_writev (/usr/sbin/nginx)
\t            1111 main (/usr/sbin/nginx)

nginx
\t            9999 [unknown] (/usr/sbin/nginx)

nginx
\tffffffffc0001000 bbr_main ([tcp_bbr])
\t               0 [unknown] ([unknown])

haproxy

"""


def test_equal_stacks_are_counted_together_with_the_outermost_frame_first() -> None:
    assert list(folded(parse(SCRIPT.splitlines(keepends=True)))) == [
        "haproxy 1",
        "nginx;[nginx] 1",
        "nginx;[unknown];bbr_main_[k] 1",
        "nginx;main;ngx_writev;odb_send 2",
        "nginx;main;ngx_writev;writev;entry_SYSCALL_64_after_hwframe_[k];tcp_sendmsg_[k] 1",
    ]


def test_samples_belong_to_whose_code_was_running() -> None:
    stacks = parse(SCRIPT.splitlines())
    assert by_kind(stacks) == {"kernel": 2, "odb": 2, "program": 2, "library": 0, "unknown": 0}
    assert busiest(stacks, 1) == [(Frame("odb_send", "odb"), 2)]


def test_names_cannot_break_a_line_of_folded_stacks() -> None:
    assert list(folded({(Frame("a;b", "program"), Frame("c", "library")): 3})) == ["a:b;c 3"]


def boxes(svg: str) -> dict[str, tuple[float, float, float]]:
    """Left edge, top and width of each box by its tooltip."""
    found = {}
    for group in ElementTree.fromstring(svg).iter(f"{SVG}g"):
        title, rect = group.find(f"{SVG}title"), group.find(f"{SVG}rect")
        assert title is not None and title.text and rect is not None
        found[title.text] = tuple(float(rect.attrib[name]) for name in ("x", "y", "width"))
    return found  # type: ignore[return-value]


def test_boxes_are_as_wide_as_their_share_and_stand_on_their_callers() -> None:
    main, one, two = Frame("main", "program"), Frame("one<T>", "odb"), Frame("two", "kernel")
    found = boxes(flame.draw({(main, one): 30, (main, two): 10}, "FE: a & b"))
    assert set(found) == {
        "main (server): 40 samples, 100.0%",
        "one<T> (libodb): 30 samples, 75.0%",
        "two (kernel): 10 samples, 25.0%",
    }
    (x0, y0, w0), (x1, y1, w1), (x2, y2, w2) = found.values()
    assert w1 / w0 == pytest.approx(0.75, abs=0.01) and w2 / w0 == pytest.approx(0.25, abs=0.01)
    assert y1 == y2 < y0
    assert x1 == x0 and x2 == pytest.approx(x1 + w1, abs=1)


def test_a_graph_says_its_title_and_whose_code_ran_and_cuts_long_names() -> None:
    long = Frame("a_function_with_a_very_long_name" * 3, "library")
    svg = flame.draw({(long,): 1, (Frame("b", "kernel"),): 3}, "IS1: odb")
    texts = [text.text or "" for text in ElementTree.fromstring(svg).iter(f"{SVG}text")]
    assert texts[0] == "IS1: odb"
    assert "kernel 75.0%" in texts and "other libraries 25.0%" in texts
    assert any(text.startswith("a_function") and text.endswith("..") for text in texts)


def test_boxes_too_narrow_to_be_seen_are_left_out() -> None:
    found = boxes(flame.draw({(Frame("wide", "program"),): 1_000_000, (Frame("thin", "odb"),): 1}, "t"))
    assert [name.split()[0] for name in found] == ["wide"]


def test_a_graph_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no samples"):
        flame.draw({}, "t")
