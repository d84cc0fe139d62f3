"""The engine's API: one low-level client, and its failures in words that help.

Facts: the client library's `docker.context` (where `docker context use` leaves its choice) and `kwargs_from_env`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from docker import APIClient
from docker.constants import MINIMUM_DOCKER_API_VERSION
from docker.errors import APIError, DockerException, ImageNotFound, InvalidVersion, NotFound
from docker.utils import kwargs_from_env
from requests.exceptions import ConnectionError as TransportError
from requests.exceptions import RequestException

from labctl.runtime.protocol import RuntimeFailure

# Engine 20.10: what the distributions of today ship at the least.
OLDEST_API = (1, 41)

# A container may take long to stop or to be made on a loaded machine.
TIMEOUT_SECONDS = 120

# Requests that run side by side share a pool of connections.
POOL_SIZE = 16

NO_ENGINE = "start it (sudo systemctl start docker), point DOCKER_HOST at one, or use --runtime namespaces"
NO_ACCESS = "join the docker group (sudo usermod -aG docker $USER, then log in anew), or use --runtime namespaces"
NO_ROOM = "make room: 'docker system df' shows what takes it"
NO_IMAGE = "'labctl image build' makes the node image"
TOO_OLD = "install Docker Engine 20.10 or newer, or use --runtime namespaces"
FORWARD = "forward its socket: ssh -nNT -L /tmp/engine.sock:/var/run/docker.sock HOST, and DOCKER_HOST=unix:///tmp/engine.sock"


def open_client() -> Any:
    """A client of the engine that the environment or the docker context names. Raises RuntimeFailure."""
    try:
        settings = _settings()
        base = str(settings.get("base_url", ""))
        if base.startswith("ssh:") or settings.get("tls"):
            raise RuntimeFailure(
                f"the Docker engine at {base} is behind ssh or TLS, which labctl does not speak", FORWARD
            )
        client = APIClient(version="auto", timeout=TIMEOUT_SECONDS, num_pools=POOL_SIZE, **settings)
    except InvalidVersion:
        raise _too_old(f"an API older than {MINIMUM_DOCKER_API_VERSION}") from None
    except (DockerException, RequestException, OSError) as error:
        raise _unreachable(error) from None
    if tuple(int(part) for part in client.api_version.split(".")) < OLDEST_API:
        raise _too_old(f"API {client.api_version}")
    return client


def _settings() -> dict[str, Any]:
    settings: dict[str, Any] = {**kwargs_from_env()}
    if os.environ.get("DOCKER_HOST"):
        return settings
    # Desktop and rootless engines listen elsewhere, and say so by a context.
    from docker.context import ContextAPI

    context = ContextAPI.get_context(os.environ.get("DOCKER_CONTEXT"))
    if context is not None and context.name != "default":
        settings |= {"base_url": context.Host, "tls": context.TLSConfig}
    return settings


def _too_old(what: str) -> RuntimeFailure:
    oldest = ".".join(map(str, OLDEST_API))
    return RuntimeFailure(f"the Docker engine speaks {what}, labctl needs {oldest} or newer", TOO_OLD)


def _unreachable(error: Exception) -> RuntimeFailure:
    if "Permission denied" in str(error):
        return RuntimeFailure("the Docker engine's socket may not be opened", NO_ACCESS)
    return RuntimeFailure("no Docker engine answers", NO_ENGINE)


class Gone(RuntimeFailure):
    """The container or image that was meant is not there."""


@contextmanager
def engine_failures(what: str) -> Iterator[None]:
    """Turn the client's exceptions into RuntimeFailure: `what` failed, and why. What is missing is Gone."""
    try:
        yield
    except NotFound as error:
        explanation = str(error.explanation or error)
        missing_image = isinstance(error, ImageNotFound) or "No such image" in explanation
        raise Gone(f"{what}: {explanation}", NO_IMAGE if missing_image else "") from None
    except APIError as error:
        explanation = str(error.explanation or error)
        raise RuntimeFailure(f"{what}: {explanation}", hint_for(explanation)) from None
    except TransportError as error:
        raise _unreachable(error) from None
    except (DockerException, RequestException) as error:
        raise RuntimeFailure(f"{what}: {error}") from None


def hint_for(explanation: str) -> str:
    """What to do about an engine's complaint, as far as we know it."""
    return NO_ROOM if "no space left" in explanation else ""
