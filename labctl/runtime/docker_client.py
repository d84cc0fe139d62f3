"""The engine's API: one low-level client, and its failures in words that help."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from docker import APIClient
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
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


def open_client() -> Any:
    """A client of the engine that the environment names. Raises RuntimeFailure with the remedy."""
    try:
        client = APIClient(version="auto", timeout=TIMEOUT_SECONDS, num_pools=POOL_SIZE, **kwargs_from_env())
    except (DockerException, RequestException, OSError) as error:
        raise _unreachable(error) from None
    if tuple(int(part) for part in client.api_version.split(".")) < OLDEST_API:
        raise RuntimeFailure(
            f"the Docker engine speaks API {client.api_version}, labctl needs {OLDEST_API[0]}.{OLDEST_API[1]}",
            "install Docker Engine 20.10 or newer, or use --runtime namespaces",
        )
    return client


def _unreachable(error: Exception) -> RuntimeFailure:
    text = str(error)
    if "Permission denied" in text:
        return RuntimeFailure("the Docker engine's socket may not be opened", NO_ACCESS)
    return RuntimeFailure("no Docker engine answers", NO_ENGINE)


@contextmanager
def engine_failures(what: str) -> Iterator[None]:
    """Turn the client's exceptions into RuntimeFailure: `what` failed, and why."""
    try:
        yield
    except ImageNotFound as error:
        raise RuntimeFailure(f"{what}: {error.explanation}", "'labctl image build' makes the node image") from None
    except APIError as error:
        explanation = str(error.explanation or error)
        hint = "make room: 'docker system df' shows what takes it" if "no space left" in explanation else ""
        raise RuntimeFailure(f"{what}: {explanation}", hint) from None
    except TransportError as error:
        raise _unreachable(error) from None
    except (DockerException, RequestException) as error:
        raise RuntimeFailure(f"{what}: {error}") from None


__all__ = ["APIError", "NotFound", "engine_failures", "open_client"]
