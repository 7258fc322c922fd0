"""Graph text, both ways: one statement a line, in SSA form. `parse(str(graph)) == graph`."""
