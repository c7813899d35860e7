"""What a Dockerfile says of the container that is run, for tests that run just that."""

import json
import shlex
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Image:
    """The last stage of a Dockerfile."""

    copied: list[list[str]] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    healthcheck: list[str] = field(default_factory=list)
    user: str = "root"


def read(path: Path) -> Image:
    """The image that the last stage describes."""
    image = Image()
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        word, _, rest = line.partition(" ")
        match word:
            case "FROM":
                image = Image()
            case "COPY":
                image.copied.append(rest.split())
            case "ENV":
                image.env |= dict(pair.split("=", 1) for pair in shlex.split(rest))
            case "USER":
                image.user = rest
            case "ENTRYPOINT":
                image.entrypoint = json.loads(rest)
            case "CMD":
                image.command = json.loads(rest)
            case "HEALTHCHECK":
                image.healthcheck = json.loads(rest[rest.index("[") :])
    return image
