"""Authorization for Flask: one line, `Authz(app)`, with the settings in `app.config["AUTHZ"]`."""

from authz_flask.extension import Authz

__all__ = ["Authz"]
