"""Files that people write: five formats, one meaning, and errors that name file and line."""

from __future__ import annotations

from pathlib import Path

import pytest

from vespera_server.documents import DocumentError, read_document

TOML = """# comment
[vars]
a = 1

[[tasks]]
id = "one"
prompt = '''
several
lines'''

[[tasks]]
id = "two"
needs = [
  "one",
]
limits = { nice = 1 }
"""
YAML = """# comment
vars: {a: 1}

tasks:
  - id: one
    prompt: |
      several
      lines

  - id: two
    needs:
      - one
    limits: {nice: 1}
"""
JSON5 = """// comment
{
  vars: {a: 1},
  tasks: [
    {id: 'one',
     prompt: 'several\\
lines'},
    {
      "id": "two", /* { */
      needs: [
        "one", // ]
      ],
      limits: {nice: 1},
    },
  ],
}
"""
JSON = """{
  "vars": {"a": 1},
  "tasks": [
    {"id": "one", "prompt": "several\\nlines"},
    {
      "id": "two",
      "needs": [
        "one"
      ],
      "limits": {"nice": 1}
    }
  ]
}
"""
# Lines of: vars.a, tasks[0].prompt, tasks[1], tasks[1].needs[0], tasks[1].limits.nice, .missing
CASES = {
    "toml": (TOML, (3, 7, 11, 13, 16, 11)),
    "yaml": (YAML, (2, 6, 10, 12, 13, 10)),
    "json5": (JSON5, (3, 6, 8, 11, 13, 8)),
    "json": (JSON, (2, 4, 5, 8, 10, 5)),
}
PATHS: tuple[tuple[str | int, ...], ...] = (
    ("vars", "a"),
    ("tasks", 0, "prompt"),
    ("tasks", 1),
    ("tasks", 1, "needs", 0),
    ("tasks", 1, "limits", "nice"),
    ("tasks", 1, "missing"),
)


@pytest.mark.parametrize("format", CASES)
def test_every_format_means_the_same_and_knows_its_lines(format: str, tmp_path: Path) -> None:
    text, lines = CASES[format]
    path = tmp_path / f"tasks.{format}"
    path.write_text(text)
    document = read_document(path)
    assert document.data["vars"] == {"a": 1}
    assert [task["id"] for task in document.data["tasks"]] == ["one", "two"]
    assert document.data["tasks"][1]["needs"] == ["one"]
    assert tuple(document.line(at) for at in PATHS) == lines
    error = document.error(("tasks", 1, "limits", "nice"), "too nice")
    assert str(error) == f"{path}:{lines[4]}: tasks[1].limits.nice: too nice"


def test_json_lines_are_numbered_with_the_empty_ones(tmp_path: Path) -> None:
    path = tmp_path / "tasks.jsonl"
    path.write_text('{"id": "a"}\n\n{"id": "b"}\n')
    document = read_document(path)
    assert document.data == [{"id": "a"}, None, {"id": "b"}, None]
    assert document.line((2, "id")) == 3


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("a.toml", "a = 1\nb = = 2\n", 2),
        ("a.toml", "a = 1\na = 2\n", 2),
        ("a.yaml", "a: 1\nb: [1\n", 3),
        ("a.yml", "a: 1\na: 2\n", 2),
        ("a.json5", "{a: 1,\n b: }", 2),
        ("a.json", '{"a": 1,\n "b": }', 2),
        ("a.jsonl", '{"a": 1}\n{"b": }\n', 2),
    ],
)
def test_what_cannot_be_read_names_its_line(
    name: str, text: str, line: int, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(DocumentError) as caught:
        read_document(path)
    assert (caught.value.file, caught.value.line) == (str(path), line)


@pytest.mark.parametrize("name", ["a.json", "a.json5", "a.jsonl"])
def test_a_name_that_is_there_twice_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text('{"a": 1, "a": 2}')
    with pytest.raises(DocumentError):
        read_document(path)


def test_yaml_makes_no_objects_and_no_dates(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("when: 2026-01-01\n")
    assert read_document(path).data == {"when": "2026-01-01"}
    path.write_text("x: !!python/object/apply:os.system ['true']\n")
    with pytest.raises(DocumentError, match=r"a\.yaml:1"):
        read_document(path)


def test_bytes_that_are_no_text_and_names_that_tell_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_bytes(b"a = 1\nb = '\xff'\n")
    with pytest.raises(DocumentError, match=r"a\.toml:2: this is not UTF-8"):
        read_document(path)
    with pytest.raises(DocumentError, match="--format"):
        read_document(tmp_path / "tasks")
    assert read_document(Path("-"), "toml", "a = 1").data == {"a": 1}
