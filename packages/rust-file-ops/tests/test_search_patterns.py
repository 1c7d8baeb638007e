"""The language of search patterns: one meaning on both backends, or a clear refusal on both."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vespera_file_ops._dialect import parse
from vespera_file_ops.backends import python
from vespera_file_ops.backends.python import _danger
from vespera_file_ops.errors import PatternError


@pytest.mark.parametrize(
    ("pattern", "position", "reason"),
    [
        ("", 0, "is empty; give something to look for"),
        ("a(b", 1, "'(' is not closed; write '\\(' for the character"),
        ("a)b", 1, "')' closes nothing; write '\\)' for the character"),
        ("é[a", 1, "'[' is not closed; write '\\[' for the character"),
        ("*a", 0, "'*' repeats nothing; write '\\*' for the character"),
        ("a|+", 2, "'+' repeats nothing; write '\\+' for the character"),
        ("a**", 2, "a repetition of a repetition needs a group: (?:…)"),
        ("a++", 2, "a repetition of a repetition needs a group: (?:…)"),
        ("(a*)*", 4, "this repeats what may be empty; repeat something that is not"),
        ("^*", 1, "this repeats what may be empty; repeat something that is not"),
        ("a{3,2}", 1, "a repetition must go from a number to a larger one"),
        ("a{2000}", 1, "more than 1000 times is too much; use '*' or '+'"),
        ("(a{999}){999}", 0, "its repetitions come to too much; use smaller numbers"),
        ("a{,3}", 1, "write '{0,3}', as '{,3}' is not in the common language"),
        ("(?=a)", 0, "looking ahead is not possible, as a search takes linear time"),
        ("(?<!a)", 0, "looking behind is not possible, as a search takes linear time"),
        (r"(a)\1", 3, "references back are not possible, as a search takes linear time"),
        ("(?>a)", 0, "atomic groups are not in the common language; use '(?:'"),
        ("(?x)a", 2, "flag 'x' is not in the common language; use i or s"),
        ("(?P<1>a)", 1, "a group needs a name of its own: letters, digits and '_'"),
        (r"\p{L}", 0, "Unicode properties are not in the common language; use '\\w' or a class"),
        (r"\Aa", 0, "use '^' for the start of a line"),
        (r"\<a", 0, "use '\\b' for the border of a word, or '<' itself"),
        (r"\q", 0, "'\\q' means nothing; write 'q' for the character"),
        ("a\\", 1, "'\\' escapes nothing; write '\\\\' for the character"),
        (r"\x4", 0, "no character has this hexadecimal number"),
        (r"\u{d800}", 0, "no character has this hexadecimal number"),
        ("[z-a]", 2, "a range must go from a character to a later one"),
        (r"[a-\d]", 2, "a range must go from a character to a later one"),
        ("[a&&b]", 2, "'&&' is an operation in Rust; write '\\&'"),
        ("[a[b]]", 2, "'[' in a class must be escaped: write '\\['"),
        ("[[:what:]]", 1, "'[:' must begin a class such as [:alpha:]"),
        (r"[\b]", 1, "a border of a word cannot be in a class"),
        ("a|[\\n\\x0a]", 3, "asks for a line feed, which no line has; use multiline=True"),
        ("[\n]", 1, "asks for a line feed, which no line has; use multiline=True"),
        ("a\\nb", 1, "asks for a line feed, which no line has; use multiline=True"),
        ("\ud800", 0, "has a character that UTF-8 cannot hold"),
        ("(" * 60 + "a" + ")" * 60, 50, "more than 50 groups in each other; use fewer"),
    ],
)
def test_what_is_refused_and_why(ops: ModuleType, pattern: str, position: int, reason: str) -> None:
    with pytest.raises(PatternError) as caught:
        ops.search_text("a", pattern)
    error = caught.value
    assert error.context["pattern"] == pattern
    assert error.context["position"] == position
    assert error.context["reason"].startswith(reason)
    assert str(error).startswith(f"search pattern {pattern!r} at character {position}: {reason}")


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        ("a{", "a{", "a{"),
        ("{}", "f{}", "{}"),
        ("a{b}", "a{b}", "a{b}"),
        ("[]a]", "]", "]"),
        ("[^]a]", "x", "x"),
        ("[a-]", "-", "-"),
        (r"[\]\-\\]+", r"]-\ ", r"]-\ ".strip()),
        (r"\x41\u0042\x{43}\u{1F600}", "ABC😀", "ABC😀"),
        ("(?i)straße", "STRAßE STRAẞE", "STRAßE"),
        ("(?i)k", "\u212a", "\u212a"),
        ("(?i)\u017f", "S", "S"),
        ("(?i)i", "İ", None),
        (r"\w+", "a\u0301b", "a\u0301b"),
        (r"\w", "²", None),
        (r"\d", "٣", "٣"),
        (r"\s", "\x1c", None),
        (r"\s", "\u2003", "\u2003"),
        ("[[:alpha:]]+", "éabc", "abc"),
        ("a.c", "a\rc", "a\rc"),
        ("(a|ab)(c|bcd)", "abcd", "abcd"),
        ("a+?", "aaa", "a"),
        ("(?s:a.)b|c", "axb", "axb"),
        ("(?i:a)b", "AB", None),
        ("a(?i)b|c", "aB", "aB"),
    ],
)
def test_what_matches(ops: ModuleType, pattern: str, text: str, found: str | None) -> None:
    matches = ops.search_text(text, pattern)
    first = matches[0].spans[0] if matches else None
    assert (first and matches[0].text[first.start : first.end]) == found


ATOMS = [
    "a",
    "b",
    "A",
    "é",
    "\u017f",
    "k",
    " ",
    ".",
    "\\r",
    r"\w",
    r"\W",
    r"\d",
    r"\s",
    r"\S",
    "[ab]",
    "[^a]",
]
ATOMS += ["[^é\\s]", r"[\w-]", "[A-é]", "[[:upper:]]", r"\x{130}", "K", "_", "(?s:.)", r"\D"]
ASSERTIONS = ["^", "$", r"\b", r"\B"]


def grown(patterns: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    counts = st.sampled_from(["?", "{0,2}", "{2}", "??", "+", "+?", "*", "*?", "{1,}", "{1,12}"])
    return st.one_of(
        st.tuples(patterns, patterns).map("".join),
        st.tuples(patterns, patterns).map(lambda pair: f"(?:{pair[0]}|{pair[1]})"),
        st.tuples(patterns, counts).map(lambda pair: f"(?:{pair[0]}){pair[1]}"),
        st.tuples(patterns, st.sampled_from(["(?i:", "(?s:", "("])).map(
            lambda pair: f"{pair[1]}{pair[0]})"
        ),
    )


PATTERNS = st.recursive(st.sampled_from(ATOMS + ASSERTIONS), grown, max_leaves=8)
TEXTS = st.lists(
    st.sampled_from(
        ["a", "b", "A", "é", "s", "\u017f", "K", "\u212a", " ", "\n", "\r\n", "\r", "1", "_"]
    )
    | st.sampled_from(["\u0301", "İ", "\x1c", "-", "\udcff", "\udce2\udc82"]),
    max_size=14,
).map(lambda parts: "".join(parts).encode("utf-8", "surrogateescape"))
OPTIONS = st.fixed_dictionaries(
    {
        "word": st.booleans(),
        "multiline": st.booleans(),
        "case": st.sampled_from(["sensitive", "ignore", "smart"]),
        "before": st.integers(0, 2),
        "after": st.integers(0, 2),
    }
)


def answer(ops: ModuleType, text: bytes, pattern: str, options: dict[str, Any]) -> object:
    try:
        return ops.search_text(text, pattern, **options)
    except PatternError as error:
        return str(error)


@settings(max_examples=300, deadline=None)
@given(text=TEXTS, pattern=PATTERNS, options=OPTIONS)
@example(text=b"ab\nb\n", pattern="x?|b", options={"multiline": True})
@example(text="é".encode(), pattern="x?", options={})
def test_both_backends_find_the_same(text: bytes, pattern: str, options: dict[str, Any]) -> None:
    try:
        rust = importlib.import_module("vespera_file_ops.backends.rust")
    except ImportError:
        pytest.skip("the Rust extension is not built")
    assert answer(python, text, pattern, options) == answer(rust, text, pattern, options)


@settings(max_examples=150, deadline=None)
@given(text=TEXTS, pattern=PATTERNS, options=OPTIONS)
def test_the_automaton_finds_what_re_finds(
    text: bytes, pattern: str, options: dict[str, Any]
) -> None:
    quick = answer(python, text, pattern, options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_danger.Danger, "allows", lambda *_: False)
        assert answer(python, text, pattern, options) == quick


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("(?:a+)+b", "a" * 3000),
        ("(?:a|a)+b", "a" * 3000),
        ("(?:aa?)+b", "a" * 3000),
        ("(?:a|ab|b)+c", "ab" * 1500),
        (".*.*.*=.*;", "x" * 3000),
        ("a+a+a+a+b", "a" * 3000),
        ("(?:x{1,30}){1,30}y", "x" * 300),
        ("(?:a|a)" * 26 + "b", "a" * 40),
        ("(((a{1,7}){1,7}){1,7}){1,7}c", "a" * 60),
        ("(?:a{1,7}){8}" * 3 + "c", "a" * 90),
        ("(?:a|b|ab)" * 22 + "c", "ab" * 30),
        ("a?" * 26 + "a" * 26 + "b", "a" * 26),
        ("(?:a+){7}b", "a" * 500),
        ("a*" * 12 + "b", "a" * 90),
        ("(?:a|ab?){4}" * 6 + "(?:c|d)", "ab" * 60),
    ],
)
@pytest.mark.parametrize("multiline", [False, True])
def test_no_pattern_takes_for_ever(
    ops: ModuleType, pattern: str, text: str, multiline: bool
) -> None:
    assert ops.search_text(text, pattern, multiline=multiline) == []


@pytest.mark.parametrize(
    "pattern",
    [
        r"\b(?:if|in|is|import|for|from|while|with|yield|return|raise|def|class)\b",
        "(?i)(?:error|warn(?:ing)?|fatal)s?: (?:no|missing|bad) (?:file|name|line)s?",
        r"(?:\d{1,3}\.){3}\d{1,3}:\d{1,5}",
        "(?:[0-9a-f]{1,4}:){7}[0-9a-f]{1,4}",
        r"(\d{1,2})/(\d{1,2})/(\d{2,4}) (\d{1,2}):(\d{2})(:\d{2})? ?(am|pm)?",
        r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d{1,2} (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep) \d{2,4}",
        "|".join(f"word{number}" for number in range(1000)),
    ],
)
def test_what_people_look_for_stays_quick(pattern: str) -> None:
    tree = parse(pattern, literal=False, ignore_case=False)
    assert _danger.danger(tree.node, lines=False).longest is None


@pytest.mark.parametrize(
    ("pattern", "longest"),
    [
        (r"https?://(www\.)?[a-z]{2,6}(:\d{1,5})?(/[^ ]*)?", 2000),
        (r"(?:\d+\.){3}\d+", 500),
        (r"[\w.+-]+@[\w-]+\.[\w.]{2,6}", 500),
        (r"(?:foo|bar)\s*=", 2000),
    ],
)
def test_a_repetition_without_end_stays_quick_for_lines_of_code(pattern: str, longest: int) -> None:
    tree = parse(pattern, literal=False, ignore_case=False)
    assert _danger.danger(tree.node, lines=False).allows(longest)
