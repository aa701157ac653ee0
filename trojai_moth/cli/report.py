"""``report`` and ``export``: a finished run for people, and for other tools."""

from __future__ import annotations

from pathlib import Path

import click

from ..core.files import write_text
from .base import command

_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
_truth = click.option(
    "--truth", metavar="ROUND", type=_FOLDER, help="The labelled round; default: the labels in the run's results.csv."
)


@command("report")
@click.argument("run_dir", metavar="RUN", type=_FOLDER)
@_truth
@click.option(
    "--cards",
    type=_FOLDER,
    help="Folder of model cards, MODEL/README.md, which add heat maps, similar pairs, and pictures of the first "
    "models. Default: cards/ of the run, where `card --run` writes them.",
)
@click.option("--format", "form", type=click.Choice(["html", "markdown"]), default="html", show_default=True)
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help="Default: RUN/report.html, or standard output."
)
def report_run(run_dir: Path, truth: Path | None, cards: Path | None, form: str, out: Path | None) -> None:
    """Show a RUN that rescan made as one HTML file, which needs no network; or as Markdown for logs."""
    from ..eval.report.markdown import to_markdown
    from ..eval.report.page import render_page
    from ..eval.report.run_view import read_view

    view = read_view(run_dir, truth, cards)
    if form == "markdown":
        text = to_markdown(view.rows, view.summary)
        if out is None:
            click.echo(text, nl=False)
            return
        write_text(out, text)
    else:
        out = out or run_dir / "report.html"
        write_text(out, render_page(view))
    click.echo(f"{out}: {len(view.rows)} models, {sum(1 for m in view.models.values() if m['distances'])} with a card")


@command("export")
@click.argument("run_dir", metavar="RUN", type=_FOLDER)
@_truth
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Folder to write to; default RUN/export.")
@click.option("--parquet/--no-parquet", default=True, help="Also parquet, which needs pyarrow.")
def export_run(run_dir: Path, truth: Path | None, out: Path | None, parquet: bool) -> None:
    """Write the RUN's models and candidate triggers as CSV and parquet; docs/results-schema.md says what is in them."""
    from ..eval.report.export import export_tables, write_tables
    from ..eval.report.run_view import read_view

    for path in write_tables(export_tables(read_view(run_dir, truth)), out or run_dir / "export", parquet=parquet):
        click.echo(str(path))
