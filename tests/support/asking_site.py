"""The treasury in Flask for a real server, whose parent process has asked the decision point before it forks.

`gunicorn --preload 'tests.support.asking_site:open_site()'` with the folder of the settings in `TREASURY`. Who it asks
with is in `settings.json` beside them.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Final

from tests.support.surfaces.flask_surface import build

APPROVE: Final = "/invoices/1/approve"


def open_site() -> Any:
    """The WSGI application; what it was asked with is left in the pool of this process."""
    told = json.loads((Path(os.environ["TREASURY"]) / "settings.json").read_text())
    surface = build(told["settings"])
    assert surface.request("POST", APPROVE, {"Authorization": f"Bearer {told['token']}"}).status == 200
    return surface._client.application
