"""What `qir.analyze` finds out, as data, and how its steps are kept and shared out."""
