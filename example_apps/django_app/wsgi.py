"""The treasury API on Django.

gunicorn --threads 4 example_apps.django_app.wsgi:application
"""

import os

from django.core.wsgi import get_wsgi_application

os.environ["DJANGO_SETTINGS_MODULE"] = "example_apps.django_app.settings"

application = get_wsgi_application()
