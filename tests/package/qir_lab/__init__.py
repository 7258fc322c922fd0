"""A package that adds to qir: an operator with its lowering and emission for torch, a pass, and a target profile."""
