"""Runtime authorization for Python web applications and the AI agents that call them.

This package is the core and imports no framework; the middleware lines are in `authz_starlette`, `authz_django`
and `authz_flask`.
"""

from authz_middleware.advice import Obligation
from authz_middleware.answer import Answer
from authz_middleware.authorization import Authorization
from authz_middleware.current import authz
from authz_middleware.decision import Decision, Reason, Source
from authz_middleware.errors import (
    AccessDenied,
    AnnotationError,
    AuthzError,
    NoRequestError,
    PolicyError,
    SettingsError,
)
from authz_middleware.identity.principal import Actor, Principal
from authz_middleware.loaders import ResourceLoaders
from authz_middleware.permission import Permission, PublicAccess, public, requires
from authz_middleware.resource import Resource
from authz_middleware.search import SearchError
from authz_middleware.settings import Settings

__all__ = [
    "AccessDenied",
    "Actor",
    "AnnotationError",
    "Answer",
    "Authorization",
    "AuthzError",
    "Decision",
    "NoRequestError",
    "Obligation",
    "Permission",
    "PolicyError",
    "Principal",
    "PublicAccess",
    "Reason",
    "Resource",
    "ResourceLoaders",
    "SearchError",
    "Settings",
    "SettingsError",
    "Source",
    "authz",
    "public",
    "requires",
]

__version__ = "0.1.0"
