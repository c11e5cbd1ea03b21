"""Draw the emoji designs named in designs.json into one atlas picture.

    npm pack @iconify-json/noto @iconify-json/noto-v1 ...    (see data/emoji-world/designs.json for the sets)
    python -m disendiff_lite.emoji_world.draw.build_atlas FOLDER_OF_THE_TGZ_FILES

The atlas is committed, so only somebody who changes the designs runs this. Every design is drawn at four times
its size, cropped to what is visible, and fitted into a 64x64 cell by its longer side, so that "28 pixels" means
the same for every design.
"""

import argparse
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import resvg_py
from PIL import Image

from disendiff_lite.emoji_world.draw.world import CELL, design_entries
from disendiff_lite.support.paths import WORLD

COLUMNS = 16


def read_icon_set(package: Path) -> dict:
    """Icons of one `@iconify-json` package: the parsed `icons.json` of its tarball."""
    with tarfile.open(package) as archive:
        return json.load(archive.extractfile("package/icons.json"))


def draw_design(icon_set: dict, name: str) -> Image.Image:
    """One icon as a CELL x CELL RGBA sprite, cropped to its visible part and centred."""
    icon = icon_set["icons"][name]
    width, height = (icon.get(side, icon_set.get(side, 16)) for side in ("width", "height"))
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{icon.get("left", 0)} {icon.get("top", 0)} {width} {height}">{icon["body"]}</svg>'
    )
    picture = Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg, width=4 * CELL, height=4 * CELL))))
    picture = picture.convert("RGBA")
    rows, columns = np.nonzero(np.asarray(picture)[..., 3] > 40)
    picture = picture.crop((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))
    scale = CELL / max(picture.size)
    picture = picture.resize([max(1, round(side * scale)) for side in picture.size], Image.LANCZOS)
    sprite = Image.new("RGBA", (CELL, CELL))
    sprite.paste(picture, ((CELL - picture.width) // 2, (CELL - picture.height) // 2))
    return sprite


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packages", type=Path, help="folder with the .tgz files that `npm pack` wrote")
    folder = parser.parse_args().packages
    designs = design_entries()
    sets = {}
    for prefix in sorted({design["set"] for design in designs}):
        packages = sorted(folder.glob(f"iconify-json-{prefix}-[0-9]*.tgz"))
        if not packages:
            parser.error(f"no iconify-json-{prefix}-*.tgz in {folder}: run `npm pack @iconify-json/{prefix}` there")
        sets[prefix] = read_icon_set(packages[-1])
    rows = -(-len(designs) // COLUMNS)
    atlas = Image.new("RGBA", (COLUMNS * CELL, rows * CELL))
    for index, design in enumerate(designs):
        sprite = draw_design(sets[design["set"]], design["name"])
        atlas.paste(sprite, (index % COLUMNS * CELL, index // COLUMNS * CELL))
    atlas.save(WORLD / "atlas.png", optimize=True)
    print(f"{len(designs)} designs from {len(sets)} sets -> {WORLD / 'atlas.png'}")


if __name__ == "__main__":
    main()
