"""The rules of the house, checked over the syntax trees: imports run one way, dangerous libraries have one owner."""

import ast
from collections.abc import Iterator
from pathlib import Path

import bus.messages.every  # noqa: F401 - declares all
from bus.messages.base import declared_events, declared_requests
from bus.reference import reference
from services.cloud_link.topics import TOPICS

ROOT = Path(__file__).parents[2]
PARTS = ("common", "bus", "services", "install")

OWNERS_OF_LIBRARIES = {
    "docker": {"services/docker_worker/engine.py"},
    "zmq": {"bus/"},
    "pyroute2": {"services/netmon/netlink.py"},
    "socketio": {"services/cloud_link/session.py", "services/local_cloud/"},
    "pickle": set(),
}


def sources() -> Iterator[tuple[str, ast.Module]]:
    for part in PARTS:
        for path in sorted((ROOT / part).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def test_imports_run_one_way() -> None:
    may_import = {
        "common": {"common"},
        "bus": {"common", "bus"},
        "install": {"common", "bus", "install", "services"},
    }
    wrong = []
    for path, tree in sources():
        part = path.split("/")[0]
        for name in imports(tree):
            top = name.split(".")[0]
            if top not in PARTS:
                continue
            if part == "services":
                service = path.split("/")[1]
                allowed = top in ("common", "bus") or name.startswith(f"services.{service}")
            else:
                allowed = top in may_import[part]
            if not allowed:
                wrong.append(f"{path} imports {name}")
    assert wrong == []


def test_dangerous_libraries_have_one_owner() -> None:
    wrong = [
        f"{path} imports {name}"
        for path, tree in sources()
        for name in imports(tree)
        if (owners := OWNERS_OF_LIBRARIES.get(name.split(".")[0])) is not None
        and not any(path.startswith(owner) for owner in owners)
    ]
    assert wrong == []


def test_nothing_is_caught_without_a_name_nor_swallowed() -> None:
    wrong = []
    for path, tree in sources():
        for node in ast.walk(tree):
            if not isinstance(node, ast.ExceptHandler):
                continue
            if node.type is None:
                wrong.append(f"{path}:{node.lineno} bare except")
            broad = isinstance(node.type, ast.Name) and node.type.id in ("Exception", "BaseException")
            if broad and all(isinstance(line, ast.Pass) for line in node.body):
                wrong.append(f"{path}:{node.lineno} swallows everything")
    assert wrong == []


def test_the_message_reference_is_current() -> None:
    assert (ROOT / "docs" / "messages.md").read_text(encoding="utf-8") == reference(), "run `make reference`"


def test_names_follow_the_grammar_and_are_declared_by_their_owner() -> None:
    for declaration in (*declared_events(), *declared_requests()):
        module = declaration.record.__module__
        if not module.startswith("bus.messages."):
            continue
        owner = module.removeprefix("bus.messages.")
        words = declaration.name.split(".")
        if owner == "common":
            assert len(words) == 1, declaration.name
        else:
            assert words[0] == owner, declaration.name
        assert declaration.record.__doc__, declaration.name


def test_every_request_has_a_row_in_its_services_table_and_no_row_is_without() -> None:
    for owner in ("cloud_link", "docker_worker", "metrics", "netmon"):
        tree = ast.parse((ROOT / "services" / owner / "__main__.py").read_text(encoding="utf-8"))
        (table,) = [
            node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == "HANDLERS"
        ]
        assert isinstance(table, ast.Dict)
        rows = {key.id for key in table.keys if isinstance(key, ast.Name)}
        declared = {
            declaration.record.__name__
            for declaration in declared_requests()
            if declaration.record.__module__ == f"bus.messages.{owner}"
        }
        assert rows == declared, owner


def test_every_topic_of_the_protocol_has_a_row_in_the_gateways_table() -> None:
    assert set(TOPICS) == {
        "create_new_runtime",
        "delete_device",
        "start_device",
        "stop_device",
        "restart_device",
        "run_command",
        "get_consumption_device",
        "get_consumption_orchestrator",
        "get_device_status",
        "get_host_interfaces",
        "get_serial_devices",
        "delete_orchestrator",
    }


def test_every_file_says_what_it_is_for() -> None:
    wrong = [path for path, tree in sources() if tree.body and not ast.get_docstring(tree)]
    assert wrong == []
