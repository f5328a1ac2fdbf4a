"""A program as Python's syntax tree: where a function is defined, whether it does anything, and what of the rest it
needs. Runs nothing."""

import ast
from collections.abc import Iterator, Sequence

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def definition(tree: ast.Module, name: str) -> ast.stmt | None:
    """The last statement of the outermost level that defines function `name`: Python's own rule."""
    for statement in reversed(tree.body):
        if isinstance(statement, (*_FUNCTIONS, ast.Assign)) and name in set(_bound(statement)):
            return statement
    return None


def does_something(statement: ast.stmt, *, returns: bool) -> bool:
    """Whether a definition is more than a docstring, `pass` and bare words; with `returns`, whether it ever returns."""
    if not isinstance(statement, _FUNCTIONS):
        return True
    if returns:
        ends = (ast.Yield, ast.YieldFrom, ast.Raise, ast.Return)
        return any(isinstance(node, ends) and not _is_bare(node) for node in _within(statement))
    idle = (ast.Pass, *_FUNCTIONS, ast.ClassDef)
    words = (ast.Constant, ast.Name)
    return not all(
        isinstance(line, idle) or (isinstance(line, ast.Expr) and isinstance(line.value, words))
        for line in statement.body
    )


def without_examples(tree: ast.Module, lines: Sequence[str], function: ast.stmt, name: str) -> str:
    """The source without what would run the function, and, of what follows it, with what it uses alone.

    Before it everything else stays: imports, constants, a recursion limit that is raised.
    """
    place = tree.body.index(function)
    kept = [statement for statement in tree.body[:place] if not _runs(statement, name)] + [function]
    if isinstance(function, _FUNCTIONS):  # the question's own stub, a draft
        kept = [statement for statement in kept if statement is function or name not in set(_bound(statement))]
    wanted = {used for statement in kept for used in _used(statement)}
    rest = [statement for statement in tree.body[place + 1 :] if not _runs(statement, name)]
    while needed := [statement for statement in rest if wanted & set(_bound(statement))]:
        kept += needed
        rest = [statement for statement in rest if statement not in needed]
        wanted |= {used for statement in needed for used in _used(statement)}
    kept_lines = {line for statement in kept for line in _span(statement)}
    dropped = {line for statement in tree.body if statement not in kept for line in _span(statement)} - kept_lines
    future = [line for statement in kept if _is_future(statement) for line in _span(statement)]
    body = [line for number, line in enumerate(lines, 1) if number not in dropped and number not in future]
    return "\n".join([*(lines[number - 1] for number in future), *body]).strip("\n") + "\n"


def _runs(statement: ast.stmt, name: str) -> bool:
    """Whether a statement would run something of the model's own: `if __name__`, an example, a test."""
    if isinstance(statement, (*_FUNCTIONS, ast.ClassDef, ast.Import, ast.ImportFrom)):
        return False
    if isinstance(statement, ast.Assign | ast.AnnAssign) and name in set(_bound(statement)):
        return False
    return bool({name, "__name__"} & set(_used(statement)))


def _bound(statement: ast.stmt) -> Iterator[str]:
    """The names that a statement of the outermost level binds."""
    if isinstance(statement, (*_FUNCTIONS, ast.ClassDef)):
        yield statement.name
    elif isinstance(statement, ast.Import | ast.ImportFrom):
        yield from ((alias.asname or alias.name).partition(".")[0] for alias in statement.names)
    elif isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        yield from (node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name))


def _used(statement: ast.stmt) -> Iterator[str]:
    return (node.id for node in ast.walk(statement) if isinstance(node, ast.Name))


def _span(statement: ast.stmt) -> range:
    """The numbers of a statement's lines, decorators included."""
    decorators = getattr(statement, "decorator_list", [])
    return range(min(node.lineno for node in (statement, *decorators)), (statement.end_lineno or 0) + 1)


def _within(function: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a function, but for those of functions and classes inside it."""
    left = list(ast.iter_child_nodes(function))
    while left:
        node = left.pop()
        yield node
        if not isinstance(node, (*_FUNCTIONS, ast.ClassDef, ast.Lambda)):
            left.extend(ast.iter_child_nodes(node))


def _is_bare(node: ast.AST) -> bool:
    return isinstance(node, ast.Return) and node.value is None


def _is_future(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.ImportFrom) and statement.module == "__future__"
