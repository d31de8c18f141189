"""Screenshots of an explorer page for the README: light, dark and phone.

python -m tests.visualization.screenshots PAGE.html FOLDER [LINK]      # LINK: "#layer=1&head=3&token=12&reveal="
"""

import pathlib
import sys
import tempfile

from .browser import Browser

VIEWS = {  # name: width, height, scale, dark
    "light": (1280, 900, 1, False),
    "dark": (1280, 900, 1, True),
    "phone": (390, 844, 2, False),
}


def take(page, folder, link=""):
    """Write explorer-light.png, -dark.png and -phone.png into a folder, which is made; returns their paths."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    with tempfile.TemporaryDirectory() as profile, Browser(profile) as browser:
        for name, (width, height, scale, dark) in VIEWS.items():
            browser.open(page, link, width, height, scale, dark)
            paths.append(folder / f"explorer-{name}.png")
            browser.screenshot(paths[-1], full=width > 600)
    return paths


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    print(*take(*sys.argv[1:]), sep="\n")
