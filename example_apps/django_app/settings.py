"""Settings of the treasury API on Django: what Django needs, and three lines for authorization."""

import os
import secrets
from pathlib import Path

SECRET_KEY = secrets.token_urlsafe(50)  # nothing here is signed with it; a real application keeps its own
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
ROOT_URLCONF = "example_apps.django_app.urls"
USE_TZ = True
TIME_ZONE = "UTC"
INSTALLED_APPS = ["authz_django"]
MIDDLEWARE = ["authz_django.AuthzMiddleware"]
AUTHZ = os.environ.get("AUTHZ_SETTINGS") or Path(__file__).with_name("authz.toml")
