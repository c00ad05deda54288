"""The table `[remote.credential]`: what the decision point is shown to know who asks."""

from __future__ import annotations

from authz_middleware.settings.secret import Secret
from authz_middleware.settings.section import Section


def read_credential(remote: Section) -> Secret | None:
    """The bearer token shown to the decision point: in a file that may be rotated under us, or by reference."""
    section = remote.optional_table("credential")
    if section is None:
        return None
    path, token = section.file("token_file", None), section.secret("token")
    section.done()
    if ("token_file" in section) is ("token" in section):
        section.problem("", 'needs exactly one of token_file = "path" and token = { env = "NAME" }')
    return Secret(file=path) if path is not None else token
