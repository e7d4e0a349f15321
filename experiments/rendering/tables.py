"""A table's files from its records."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trajclust_experiments.rendering.figures import save_figure
from trajclust_experiments.rendering.markdown import write_text
from trajclust_experiments.tables import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SCORES = ("scores", "centre_scores", "centre_returns")  # what of a record a training that diverges makes null


def rendered(table: Table, records: Sequence[dict[str, Any]]) -> "tuple[str, dict[str, Figure]]":
    """A table's Markdown and its figures by file stem; scores that are null, of what diverged, are NaN there."""
    return table.render([with_nan(record) for record in records])


def write_table(table: Table, records: Sequence[dict[str, Any]], folder: Path) -> tuple[str, list[Path]]:
    """Renders a table into `folder`: table.md and its figures. Returns the Markdown and the files."""
    text, figures = rendered(table, records)
    return text, write_rendered(text, figures, folder)


def write_rendered(text: str, figures: "dict[str, Figure]", folder: Path, sharp: bool = False) -> list[Path]:
    """Writes what `rendered` returned: table.md first, then the figures, by stem. For `sharp` see `save_figure`."""
    folder.mkdir(parents=True, exist_ok=True)
    for stale in {path.stem for path in folder.glob("*.png")} - set(figures):
        (folder / f"{stale}.png").unlink()
    files = []
    for stem, figure in figures.items():
        files.append(folder / f"{stem}.png")
        save_figure(figure, files[-1], sharp)
    pictures = "".join(f"\n![{file.stem}]({file.name})\n" for file in files)
    files.insert(0, folder / "table.md")
    write_text(files[0], text + pictures)
    return files


def with_nan(record: dict[str, Any]) -> dict[str, Any]:
    """A record whose scores that are null, of what diverged, are numbers again."""
    return record | {name: _numbers(record[name]) for name in _SCORES if name in record}


def _numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    return float("nan") if value is None else value
