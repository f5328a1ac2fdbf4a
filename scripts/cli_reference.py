"""Write docs/cli.md from the commands' own help, or with --check say whether it is up to date."""

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from reasonvec.cli import main

HEAD = """# Commands

Written by `make docs` from `reasonvec --help`; `make check` fails when the two differ.

"""


def reference() -> str:
    """The help of every command, as Markdown."""
    context = click.Context(main, info_name="reasonvec", max_content_width=100, terminal_width=100)
    parts = [f"## reasonvec\n\n```\n{main.get_help(context)}\n```\n"]
    return HEAD + "\n".join([*parts, *_sections(main, context)])


def _sections(group: click.Group, context: click.Context) -> Iterator[str]:
    """A section for each command of a group, those of groups within it after them."""
    for name, command in sorted(group.commands.items()):
        inner = click.Context(command, parent=context, info_name=name, max_content_width=100, terminal_width=100)
        yield f"## {inner.command_path}\n\n```\n{command.get_help(inner)}\n```\n"
        if isinstance(command, click.Group):
            yield from _sections(command, inner)


if __name__ == "__main__":
    file = Path(sys.argv[-1])
    if "--check" in sys.argv:
        if file.read_text() != reference():
            sys.exit(f"{file} is not what the commands say; run `make docs`.")
    else:
        file.write_text(reference())
