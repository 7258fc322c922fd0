"""Runs of pipelines: as files, recorded, replayed, and searched for the step that costs the numbers."""
