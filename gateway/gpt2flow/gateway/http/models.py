"""List of the models in OpenAI's form."""

import time
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gpt2flow.client import ClientError, Model
from gpt2flow.gateway.answers.failures import to_api_error
from gpt2flow.gateway.http.admission import Admission, request_id
from gpt2flow.gateway.http.answering import while_connected
from gpt2flow.gateway.http.backend import Backend
from gpt2flow.gateway.http.drain import Drain


class ModelRoutes:
    """Routes `/v1/models` and `/v1/models/{id}`.

    Args:
        backend: Connection to the server.
        admission: Checks of a request.
        drain: Drain of the gateway.
    """

    def __init__(self, backend: Backend, admission: Admission, drain: Drain) -> None:
        self._backend = backend
        self._admission = admission
        self._drain = drain
        # The server does not tell when a model was loaded.
        self._created = int(time.time())

    async def get_models(self, request: Request) -> Response:
        """List the loaded models."""
        models = await self._call(request, self._backend.client.models)
        return JSONResponse({"object": "list", "data": [self._written(each) for each in models]})

    async def get_model(self, request: Request) -> Response:
        """Describe one model."""
        name = request.path_params["id"]
        model = await self._call(request, self._backend.client.model, name)
        return JSONResponse(self._written(model))

    async def _call(self, request: Request, method: Any, *arguments: str) -> Any:
        self._admission.admit(request)
        call = method(*arguments, request_id=request_id(request))
        try:
            return await while_connected(request.receive, self._drain, call)
        except ClientError as error:
            raise to_api_error(error) from error

    def _written(self, model: Model) -> dict[str, Any]:
        return {
            "id": model.name,
            "object": "model",
            "created": self._created,
            "owned_by": "gpt2flow",
            "max_model_len": model.limits.context_length,
            "system_fingerprint": model.fingerprint,
            "profile": model.profile,
        }
