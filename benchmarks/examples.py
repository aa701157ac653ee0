"""The example in docs/example: cards of a run's models, their atlas of heat maps, the report and screenshots of it.

    python benchmarks/examples.py demo/round demo/run --into docs/example

Needs Chromium and playwright for the screenshots. --set goes to `trojai-moth card`, --data too; a card that is there is
kept, so that a stopped call goes on.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
DESKTOP, PHONE = {"width": 1200, "height": 900}, {"width": 380, "height": 800}
COLOURS = 128


def main() -> None:
    """Cards, atlas, report and screenshots, one after the other."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("round", type=Path)
    options.add_argument("run", type=Path)
    options.add_argument("--into", type=Path, required=True)
    options.add_argument("--data", default="examples")
    options.add_argument("--set", action="append", default=[], dest="assignments")
    options.add_argument("--cards", type=int, default=1000, help="make the cards of so many models at most")
    chosen = options.parse_args()
    models = json.loads((chosen.run / "run.json").read_text())["models"]
    for model_id in models[: chosen.cards]:
        if not (chosen.run / "cards" / model_id / "README.md").exists():
            make_card(chosen, model_id)
    chosen.into.mkdir(parents=True, exist_ok=True)
    cards = [folder for model_id in models if (folder := chosen.run / "cards" / model_id).is_dir()]
    shutil.copytree(cards[0], chosen.into / "card", dirs_exist_ok=True)
    atlas([folder / "class_distances.png" for folder in cards], chosen.into / "atlas.png")
    command("report", chosen.run, "--truth", chosen.round)
    screenshots(chosen.run / "report.html", models[0], chosen.into)


def make_card(chosen: argparse.Namespace, model_id: str) -> None:
    """A card in the run's own folder."""
    sets = [part for assignment in chosen.assignments for part in ("--set", assignment)]
    command("card", chosen.round / model_id, "--run", chosen.run, "--fast", "--data", chosen.data, *sets)


def command(*arguments: object) -> None:
    """Run trojai-moth and stop when it fails."""
    subprocess.run([sys.executable, "-m", "trojai_moth", *map(str, arguments)], check=True)


def atlas(pictures: list[Path], path: Path) -> None:
    """All heat maps below each other."""
    images = [Image.open(picture).convert("RGB") for picture in pictures]
    sheet = Image.new("RGB", (max(image.width for image in images), sum(image.height for image in images)), "white")
    top = 0
    for image in images:
        sheet.paste(image, (0, top))
        top += image.height
    sheet.quantize(COLOURS).save(path, optimize=True)


def screenshots(page_file: Path, model_id: str, folder: Path) -> None:
    """The overview in light and dark and on a phone, and a model's page."""
    from playwright.sync_api import sync_playwright

    browser = os.environ.get("TROJAI_MOTH_BROWSER") or next(filter(None, map(shutil.which, BROWSERS)))
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, headless=True, args=FLAGS)
        for name, size, scheme, fragment in (
            ("report-light", DESKTOP, "light", ""),
            ("report-dark", DESKTOP, "dark", ""),
            ("report-phone", PHONE, "light", ""),
            ("model-light", DESKTOP, "light", f"#model/{model_id}"),
            ("model-phone", PHONE, "dark", f"#model/{model_id}"),
        ):
            page = chromium.new_page(viewport=size, color_scheme=scheme)
            page.goto(page_file.resolve().as_uri() + fragment)
            picture = folder / f"{name}.png"
            page.screenshot(path=picture, full_page=True)
            page.close()
            Image.open(picture).convert("RGB").quantize(COLOURS).save(picture, optimize=True)
        chromium.close()


if __name__ == "__main__":
    main()
