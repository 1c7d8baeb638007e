"""Task files: templates, items, roles, needs, and an error for everything that cannot work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vespera_server.documents import DocumentError, read_document
from vespera_server.run.plan import Plan, plan
from vespera_server.run.template import UnknownName, filled
from vespera_server.settings import Settings

ONE = '[[tasks]]\nid = "a"\nprompt = "go"\n'


def planned(text: str, tmp_path: Path, name: str = "tasks.toml", **options: Any) -> Plan:
    path = tmp_path / name
    path.write_text(text)
    settings = Settings.model_validate(options.pop("settings", {}))
    return plan(read_document(path), settings, directory=tmp_path, **options)


def refused(text: str, tmp_path: Path, **options: Any) -> str:
    with pytest.raises(DocumentError) as caught:
        planned(text, tmp_path, **options)
    return str(caught.value).removeprefix(f"{tmp_path}/")


def test_templates_take_braces_only() -> None:
    names = {"a": "x", "n": 3, "item": {"path": "p/q", "deep": {"er": 1}}, "yes": True}
    assert filled("${a} $a $5 {b} %s $${a} ${item.deep.er}", names) == "x $a $5 {b} %s ${a} 1"
    assert filled({"k": ["${n}", "n${n}", 4]}, names) == {"k": [3, "n3", 4]}
    assert filled("${item} ${yes}", names) == "p/q true"
    with pytest.raises(UnknownName, match="'b' is not known; there is: a, item, n, yes"):
        filled("${b}", names)
    with pytest.raises(UnknownName, match="no template"):
        filled("${a b}", names)
    with pytest.raises(UnknownName, match="is a dict"):
        filled("x${item.deep}", names)


def test_one_task_for_each_item_and_needs_by_pattern(tmp_path: Path) -> None:
    text = """
[vars]
turns = 3
[[tasks]]
id = "read-${item.name}"
prompt = "Read ${item.name}, number ${index}, as ${who}"
max_turns = "${turns}"
items = [{ name = "x" }, { name = "y" }]
[[tasks]]
id = "sum"
prompt = "Sum in ${file_dir}"
needs = ["read-*"]
priority = 2
restart = false
"""
    made = planned(text, tmp_path, variables={"who": "me"})
    assert made.name == "tasks"
    assert [spec.task_id for spec in made.specs] == ["read-x", "read-y", "sum"]
    assert made.specs[1].config["prompt"] == "Read y, number 1, as me"
    assert made.specs[1].config["max_turns"] == 3
    last = made.specs[2]
    assert (last.needs, last.priority, last.restart) == (("read-x", "read-y"), 2, False)
    assert last.config["prompt"] == f"Sum in {tmp_path}"
    assert last.config["working_directory"] == str(tmp_path)


def test_one_task_for_each_file(tmp_path: Path) -> None:
    for name in ("b.py", "a.py", "c.txt"):
        (tmp_path / name).touch()
    text = '[[tasks]]\nid = "see-${item.stem}"\nglob = "*.py"\nprompt = "See ${item}"\n'
    made = planned(text, tmp_path)
    assert [spec.config["prompt"] for spec in made.specs] == ["See a.py", "See b.py"]
    message = refused(text.replace("*.py", "*.rs"), tmp_path)
    assert message.startswith("tasks.toml:3: tasks[0].glob: '*.rs' matches no file")


def test_roles_and_settings_lie_over_each_other(tmp_path: Path) -> None:
    text = """
[agent]
model = "of-file"
timeouts = { turn = "5m" }
[roles.reader]
allowed_tools = ["Read"]
prompt = "Read ${what}"
[[tasks]]
id = "a"
role = "reader"
timeouts = { idle = 60 }
[vars]
what = "all"
"""
    settings = {
        "agent": {"model": "of-settings", "effort": "low"},
        "roles": {"reader": {"allowed_tools": ["Bash"], "max_turns": 7}},
    }
    (spec,) = planned(text, tmp_path, settings=settings).specs
    assert spec.extra == {"role": "reader"}
    assert spec.config == {
        "model": "of-file",
        "effort": "low",
        "timeouts": {"turn": "5m", "idle": 60},
        "allowed_tools": ["Read"],
        "max_turns": 7,
        "prompt": "Read all",
        "working_directory": str(tmp_path),
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ONE + "colour = 'x'\n", "tasks.toml:4: tasks[0].colour: there is no such field; "),
        (
            ONE.replace("prompt", "promptt"),
            'tasks.toml:3: tasks[0].promptt: there is no such field; did you mean "prompt"?',
        ),
        (
            ONE.replace("tasks", "tassks"),
            'tasks.toml:1: tassks: there is no such field; did you mean "tasks"?',
        ),
        (
            "[run]\nagnets = 2\n" + ONE,
            'tasks.toml:2: run.agnets: there is no such field; did you mean "agents"?',
        ),
        (
            "[agent]\nmodelx = 'x'\n" + ONE,
            'tasks.toml:2: agent.modelx: there is no such field; did you mean "model"?',
        ),
        (
            ONE + "timeouts = {trun = 3}\n",
            'tasks.toml:4: tasks[0].timeouts.trun: there is no such field; did you mean "turn"?',
        ),
        (
            ONE + "scripted = [{txt = 'a'}]\n",
            'tasks.toml:4: tasks[0].scripted[0].txt: there is no such field; did you mean "text"?',
        ),
        (
            '[[tasks]]\nprompt = "p"\n',
            "tasks.toml:1: tasks[0].id: it is missing: Name of the task; unlike all others.",
        ),
        (ONE + "timeouts = {turn = 'soon'}\n", "tasks.toml:4: tasks[0].timeouts.turn: 'soon': "),
        (ONE + "session_id = 'x'\n", "tasks.toml:4: tasks[0].session_id: 'x': leave it out"),
        (ONE + "role = 'no'\n", "tasks.toml:4: tasks[0].role: 'no' is no role; there are: none"),
        (ONE + "needs = ['b']\n", "tasks.toml:4: tasks[0].needs[0]: 'b' is no task of this file"),
        (ONE + "needs = 'b'\n", "tasks.toml:4: tasks[0].needs: 'b': "),
        (ONE + "priority = 1e3\n", "tasks.toml:4: tasks[0].priority: 1000.0: "),
        (ONE + "priority = 10000000\n", "tasks.toml:4: tasks[0].priority: 10000000: "),
        (ONE + "glob = '*'\nitems = []\n", "tasks.toml:1: tasks[0]: "),
        (ONE + "working_directory = 'no'\n", "tasks.toml:4: tasks[0].working_directory: "),
        (ONE + "scripted = [{}]\n", "tasks.toml:4: tasks[0].scripted[0]: "),
        (ONE + ONE, "tasks.toml:5: tasks[1].id: 'a' is the id of the task in line 1 too"),
        (ONE.replace("go", "${no}"), "tasks.toml:3: tasks[0].prompt: ${no}: 'no' is not known"),
        (ONE.replace('"go"', "3"), "tasks.toml:3: tasks[0].prompt: 3: "),
        ('[[tasks]]\nid = "a"\n', "tasks.toml:1: tasks[0].prompt: the task has none"),
        ("[run]\nagents = 0\n" + ONE, "tasks.toml:2: run.agents: 0: "),
        ("[batch]\n" + ONE, "tasks.toml:1: batch: there is no such field"),
        ("tasks = []\n", "tasks.toml:1: tasks: "),
        ("[roles.r]\nmodel = '${no}'\n" + ONE + "role='r'\n", "tasks.toml:2: roles.r.model: ${no}"),
        ("[agent]\nmax_turns = 0\n" + ONE, "tasks.toml:2: agent.max_turns: 0: "),
        (
            ONE + 'needs = ["b"]\n[[tasks]]\nid="b"\nprompt="x"\nneeds=["a"]\n',
            "tasks.toml:4: tasks[0].needs: tasks need each other in a circle: a -> b -> a",
        ),
    ],
)
def test_what_cannot_work_is_named_by_file_line_and_field(
    text: str, message: str, tmp_path: Path
) -> None:
    assert refused(text, tmp_path).startswith(message)


def test_json_lines_are_tasks(tmp_path: Path) -> None:
    text = '{"id": "a", "prompt": "x"}\n\n{"id": "b", "prompt": "y", "needs": ["a"]}\n'
    made = planned(text, tmp_path, "tasks.jsonl")
    assert [spec.task_id for spec in made.specs] == ["a", "b"]
    message = refused(text + '{"id": "c", "prompt": 3}\n', tmp_path, name="tasks.jsonl")
    assert message.startswith("tasks.jsonl:4: [3].prompt: 3: ")


def test_an_environment_variable_by_name(tmp_path: Path) -> None:
    text = ONE.replace("go", "branch ${env.BRANCH}")
    (spec,) = planned(text, tmp_path, environment={"BRANCH": "main"}).specs
    assert spec.config["prompt"] == "branch main"
    assert "'BRANCH' is not known" in refused(text, tmp_path, environment={})
