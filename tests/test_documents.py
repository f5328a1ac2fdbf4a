"""Documents that stay true: links lead somewhere, commands and options that are named exist."""

import re
from pathlib import Path

import click
import pytest

from reasonvec.cli import main

REPOSITORY = Path(__file__).parent.parent
DOCUMENTS = sorted([*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/**/*.md")])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_links_lead_somewhere(document):
    for link in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
        assert link.startswith("https://") or (document.parent / link).exists(), link


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_commands_and_their_options_exist(document):
    for line in re.findall(r"^reasonvec (.*)$", document.read_text(), re.MULTILINE):
        words = line.split("#")[0].split()
        command = main
        while isinstance(command, click.Group):
            assert words[0] in command.commands, line
            command = command.commands[words.pop(0)]
        known = {option for parameter in command.params for option in parameter.opts}
        for word in words:
            assert not word.startswith("--") or word in known, (
                f"{document.name}: reasonvec {command.name} has no {word}"
            )


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_make_targets_exist(document):
    makefile = (REPOSITORY / "Makefile").read_text()
    for target in re.findall(r"`make ([a-z-]+)", document.read_text()) + re.findall(
        r"^make ([a-z-]+)", document.read_text(), re.MULTILINE
    ):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"{document.name}: make {target}"
