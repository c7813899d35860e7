"""A page, and what the entrypoint says of app and migrations."""

from django.http import HttpRequest, HttpResponse
from django.urls import path

from shop import health


def shop(_: HttpRequest) -> HttpResponse:
    """Where a real app would begin."""
    return HttpResponse("Shop\n")


def api_health(_: HttpRequest) -> HttpResponse:
    """Without the database, so that it answers while migrations hold it up."""
    status, body = health.ask()
    return HttpResponse(body, status=status, content_type="application/json")


urlpatterns = [path("", shop), path("api/health", api_health)]
