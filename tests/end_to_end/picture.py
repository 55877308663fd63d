"""The picture in docs/report.md: the top of a made-up study's page. `python tests/end_to_end/picture.py docs/report.png`"""

from __future__ import annotations

import base64
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from browser import Browser, find_browser
from made_study import make_study

WIDTH, HEIGHT = 1120, 1030


def main(target: Path) -> None:
    program = find_browser()
    if program is None:
        raise SystemExit("no Chromium on the PATH; `make browser` installs one")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        command = [
            sys.executable,
            "-m",
            "lrm_safety",
            "report",
            *make_study(Path(folder) / "in"),
            f"output={folder}/out",
        ]
        subprocess.run([*command, "title=A made-up study"], check=True, stdout=subprocess.DEVNULL)
        with Browser(program, Path(folder) / "profile") as browser:
            browser.look(WIDTH, HEIGHT)
            browser.call("Emulation.setScrollbarsHidden", hidden=True)
            browser.open((Path(folder) / "out" / "report.html").as_uri())
            clip = {"x": 0, "y": 0, "width": WIDTH, "height": HEIGHT, "scale": 1}
            answer = browser.call("Page.captureScreenshot", clip=clip)
    target.write_bytes(base64.b64decode(answer["data"]))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
