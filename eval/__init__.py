"""Judging a run: labels are joined to verdicts here and nowhere else."""
