"""Authorization for Django and Django REST framework: one line in `MIDDLEWARE`, one in `INSTALLED_APPS`.

MIDDLEWARE = ["authz_django.AuthzMiddleware", ...]
INSTALLED_APPS = ["authz_django", ...]
AUTHZ = "authz.toml"
"""

from authz_django.middleware import AuthzMiddleware
from authz_django.urlconf import protect

__all__ = ["AuthzMiddleware", "protect"]
