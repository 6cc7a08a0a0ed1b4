"""Repository: the configured models, their states, load and unload."""

from collections.abc import Collection, Mapping
from typing import Any, Final

from gpt2flow.inference.kserve.v2 import open_inference_pb2 as pb
from gpt2flow.server.access.permissions import Caller, check_control
from gpt2flow.server.errors import (
    BundleError,
    ConfigError,
    InvalidRequestError,
    LoadFailedError,
    LoadingError,
    ServerError,
)
from gpt2flow.server.kserve.results import VERSION
from gpt2flow.server.models.registry import Registry

_READY: Final = "READY"
_SHOWN: Final = 64


class Repository:
    """Registry of models in the protocol's terms."""

    def __init__(self, registry: Registry, *, control: bool) -> None:
        """Take the registry.

        Args:
            registry: Registry of the models.
            control: Whether callers without a token may load and unload models.
        """
        self._registry = registry
        self._control = control

    def index(
        self, request: pb.RepositoryIndexRequest, caller: Caller
    ) -> pb.RepositoryIndexResponse:
        """Return the states of the models that a caller may use."""
        _check_repository(request.repository_name)
        states = {name: self._state(name) for name in self._registry.names if caller.may_use(name)}
        response = pb.RepositoryIndexResponse()
        for name, (state, reason) in states.items():
            if state == _READY or not request.ready:
                response.models.add(name=name, version=VERSION, state=state, reason=reason)
        return response

    async def load(self, request: pb.RepositoryModelLoadRequest, caller: Caller) -> None:
        """Load a model.

        Raises:
            ServerError: The caller may not, or the bundle cannot be served.
        """
        self._check(request, caller, accepted=())
        try:
            await self._registry.load(request.model_name)
        except (BundleError, ConfigError) as error:
            raise LoadFailedError(request.model_name, str(error)) from error

    async def unload(self, request: pb.RepositoryModelUnloadRequest, caller: Caller) -> None:
        """Take a model out of service.

        Raises:
            ServerError: The caller may not, or there is no such model.
        """
        self._check(request, caller, accepted={"unload_dependents"})
        await self._registry.unload(request.model_name)

    def _check(
        self,
        request: pb.RepositoryModelLoadRequest | pb.RepositoryModelUnloadRequest,
        caller: Caller,
        accepted: Collection[str],
    ) -> None:
        check_control(caller, request.model_name, default=self._control)
        _check_repository(request.repository_name)
        _check_parameters(request.parameters, accepted)

    def _state(self, name: str) -> tuple[str, str]:
        """Return state of a model, and why it is not ready."""
        try:
            _, lease = self._registry.lease(name)
        except LoadingError:
            return "LOADING", ""
        except ServerError as error:
            return "UNAVAILABLE", str(error)
        lease.release()
        return _READY, ""


def _check_repository(name: str) -> None:
    if name:
        raise InvalidRequestError.of(
            "repository_name", f"is {name[:_SHOWN]!r}, must be empty: there is one repository"
        )


def _check_parameters(parameters: Mapping[str, Any], accepted: Collection[str]) -> None:
    for name in parameters:
        if name not in accepted:
            raise InvalidRequestError.of(
                "parameters",
                f"has the unsupported {name[:_SHOWN]!r}; settings and files are the server's",
            )
