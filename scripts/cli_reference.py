"""Write docs/cli.md from the commands' own help, or with --check say whether it is up to date."""

import sys
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
    for name, command in sorted(main.commands.items()):
        inner = click.Context(command, parent=context, info_name=name, max_content_width=100, terminal_width=100)
        parts.append(f"## reasonvec {name}\n\n```\n{command.get_help(inner)}\n```\n")
    return HEAD + "\n".join(parts)


if __name__ == "__main__":
    file = Path(sys.argv[-1])
    if "--check" in sys.argv:
        if file.read_text() != reference():
            sys.exit(f"{file} is not what the commands say; run `make docs`.")
    else:
        file.write_text(reference())
