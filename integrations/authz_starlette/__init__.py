"""Authorization for Starlette and FastAPI: one line, `app.add_middleware(AuthzMiddleware, settings="authz.toml")`."""

from authz_starlette.middleware import AuthzMiddleware

__all__ = ["AuthzMiddleware"]
