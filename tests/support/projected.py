"""A volume with a token as the kubelet writes it: `token` -> `..data/token`, `..data` -> a folder of this version."""

from __future__ import annotations

from pathlib import Path


class Projected:
    """`project` replaces the token by renaming one link, and then removes the version before."""

    def __init__(self, folder: Path, text: str) -> None:
        self.folder = folder
        self._version = 0
        self.project(text)
        self.token = folder / "token"
        self.token.symlink_to("..data/token")

    def project(self, text: str) -> None:
        data, old = self.folder / "..data", None
        if data.is_symlink():
            old = self.folder / data.readlink()
        self._version += 1
        version = self.folder / f"..version_{self._version}"
        version.mkdir()
        (version / "token").write_text(text)
        (self.folder / "..data_tmp").symlink_to(version.name)
        (self.folder / "..data_tmp").rename(data)
        if old is not None:
            (old / "token").unlink()
            old.rmdir()
