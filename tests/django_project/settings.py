"""The smallest Django project: what mypy's Django plugin reads, and what the tests override piece by piece."""

from __future__ import annotations

import json
import os
from pathlib import Path

BASE_DIR = Path(__file__).parent
SECRET_KEY = "of no use outside of tests"
ALLOWED_HOSTS = ["*"]
DEBUG = False
USE_TZ = True
AUTHZ = json.loads(Path(os.environ["AUTHZ_TEST_SETTINGS"]).read_text()) if "AUTHZ_TEST_SETTINGS" in os.environ else None
ROOT_URLCONF = "tests.django_project.urls"
INSTALLED_APPS = [
    "authz_django",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "rest_framework",
]
MIDDLEWARE = [
    "authz_django.AuthzMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
