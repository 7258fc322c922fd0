"""Every registered pass shows in its docstring what it does, and does it.

The docstring of a pass holds, indented, a whole graph, a line with `-->`, and the graph that the pass makes of it, both
as graph text. It is run with its default options, or as the line says: `--> load-encodings{file=x.encodings}`.

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

from qir import Pipeline, parse
from qir.registry import pass_named, pass_names
from qir.verify import verify

EXAMPLE = re.compile(r"^( *graph @.*?^ *\}) *\n\s*-->([^\n]*)\n( *graph @.*?^ *\})", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("name", [name for name in pass_names() if not name.startswith("test-")])
def test_a_pass_does_what_its_docstring_shows(name: str) -> None:
    kind = pass_named(name)
    assert kind is not None
    found = EXAMPLE.search(inspect.cleandoc(kind.__doc__ or ""))
    assert found, f"the docstring of {kind.__name__} shows no 'graph @… {{…}}', '-->', 'graph @… {{…}}'"
    graph = parse(found[1])
    verify(graph)
    step = Pipeline.parse(found[2], kind.needs).passes[0] if found[2].strip() else kind()
    assert isinstance(step, kind)
    step.run(graph)
    verify(graph)
    assert str(graph) == str(parse(found[3]))
