"""Writes `docs/messages.md` from the declarations: `python -m bus.reference [--check] FILE`."""

import argparse
import inspect
import sys
import typing
from pathlib import Path

import msgspec

import bus.messages.every  # noqa: F401 - so that everything is declared
from bus.errors import CODES
from bus.messages.base import EventDeclaration, RequestDeclaration, declared_events, declared_requests

_HEAD = """# Messages

Generated from `bus/messages` by `make reference`; do not edit. Every message travels in the envelope of
`bus/envelope.py`. `<service>` stands for each of the four. Times are unix seconds unless said otherwise.
"""


def reference() -> str:
    """The whole page."""
    parts = [_HEAD, "## Error codes\n", ", ".join(f"`{code}`" for code in CODES) + "\n", "## Events\n"]
    parts += [_event(declaration) for declaration in declared_events() if _of_the_house(declaration)]
    parts.append("## Requests\n")
    parts += [_request(declaration) for declaration in declared_requests() if _of_the_house(declaration)]
    parts.append(
        "## Mirrors\n\nEvery request and reply is shown as the event `rpc.<request>.request` or"
        " `rpc.<request>.reply` by the service that\nanswers, with secrets masked and bodies above 64 KiB left out.\n"
    )
    return "\n".join(parts)


def _of_the_house(declaration: EventDeclaration | RequestDeclaration) -> bool:
    return declaration.record.__module__.startswith("bus.messages.")


def _event(declaration: EventDeclaration) -> str:
    facts = []
    if declaration.state_key is not None:
        kept = f"state, one per `{declaration.state_key}`" if declaration.state_key else "state"
        facts.append(f"{kept}: the last one is replayed to a new subscriber")
    if declaration.period:
        facts.append(f"every {declaration.period:g} s")
    return _entry(declaration.name, declaration.record, "; ".join(facts)) + "\n"


def _request(declaration: RequestDeclaration) -> str:
    facts = "changes something" if declaration.changes else "reads only"
    facts += f"; deadline {declaration.deadline:g} s"
    if declaration.inline:
        facts += "; answered from memory"
    entry = _entry(declaration.name, declaration.record, facts)
    return f"{entry}\nReply, `{declaration.reply.__name__}`: {_doc(declaration.reply)}\n\n{_fields(declaration.reply)}"


def _entry(name: str, record: type[msgspec.Struct], facts: str) -> str:
    shown = name if "." in name else f"<service>.{name}"
    told = f"\n\n*{facts}*" if facts else ""
    return f"### `{shown}`\n\n{_doc(record)}{told}\n\n{_fields(record)}"


def _doc(record: type[msgspec.Struct]) -> str:
    return " ".join((inspect.getdoc(record) or "").split())


def _fields(record: type[msgspec.Struct]) -> str:
    hints = typing.get_type_hints(record)
    rows = [
        f"| `{field.name}` | `{_kind(hints[field.name])}` | {_default(field)} |"
        for field in msgspec.structs.fields(record)
    ]
    if not rows:
        return "No fields.\n"
    return "\n".join(["| field | type | default |", "|---|---|---|", *rows]) + "\n"


def _kind(hint: object) -> str:
    text = hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint)
    for noise in ("typing.", "bus.messages.", "common.contracts.", "docker_worker.", "netmon.", "vnic.", "metrics."):
        text = text.replace(noise, "")
    return text.replace("|", "\\|")


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "required"
    if field.default is not msgspec.NODEFAULT:
        return f"`{field.default!r}`"
    return f"`{field.default_factory()!r}`" if field.default_factory is not msgspec.NODEFAULT else ""


def main(arguments: list[str] | None = None) -> int:
    """Write the page, or with --check say whether the file is up to date."""
    parser = argparse.ArgumentParser(prog="python -m bus.reference", description=__doc__)
    parser.add_argument("--check", action="store_true", help="only compare; exit code 1 when the file is stale")
    parser.add_argument("file", type=Path)
    options = parser.parse_args(arguments)
    page = reference()
    if not options.check:
        options.file.write_text(page, encoding="utf-8")
        return 0
    if options.file.is_file() and options.file.read_text(encoding="utf-8") == page:
        return 0
    print(f"{options.file} is stale: run `make reference`", file=sys.stderr)  # noqa: T201
    return 1


if __name__ == "__main__":
    sys.exit(main())
