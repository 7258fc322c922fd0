"""Every registered pass shows in its docstring what it does, and does it.

The docstring of a pass holds, indented, a whole graph, a line with `-->`, and the graph that the pass with its default
options makes of it, both as graph text:

    graph @g(%x: f32[4]) {
      %y = Identity %x : f32[4]
      return %y
    }
    -->
    graph @g(%x: f32[4]) {
      return %x
    }
"""

from __future__ import annotations

import inspect
import re

import pytest

from qir import parse
from qir.registry import pass_named, pass_names
from qir.verify import verify

EXAMPLE = re.compile(r"^( *graph @.*?^ *\}) *\n\s*-->\s*\n( *graph @.*?^ *\})", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("name", [name for name in pass_names() if not name.startswith("test-")])
def test_a_pass_does_what_its_docstring_shows(name: str) -> None:
    kind = pass_named(name)
    assert kind is not None
    found = EXAMPLE.search(inspect.cleandoc(kind.__doc__ or ""))
    assert found, f"the docstring of {kind.__name__} shows no 'graph @… {{…}}', '-->', 'graph @… {{…}}'"
    graph = parse(found[1])
    verify(graph)
    kind().run(graph)
    verify(graph)
    assert str(graph) == str(parse(found[2]))
