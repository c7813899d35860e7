"""A FastAPI app with its migrations beside it."""

import health
from fastapi import FastAPI, Response

app = FastAPI()


@app.get("/")
def shop() -> str:
    """Where a real app would begin."""
    return "Shop"


@app.get("/api/health")
def api_health() -> Response:
    """What the entrypoint says of app and migrations."""
    status, body = health.ask()
    return Response(body, status, media_type="application/json")
