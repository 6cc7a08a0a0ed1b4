"""Routes of the gateway."""

from typing import Final

from starlette.exceptions import HTTPException
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from gpt2flow.gateway.chat.templates import ChatTemplates
from gpt2flow.gateway.config import GatewayConfig
from gpt2flow.gateway.errors import ApiError
from gpt2flow.gateway.http.admission import Admission
from gpt2flow.gateway.http.answering import ClientLeftError
from gpt2flow.gateway.http.backend import Backend
from gpt2flow.gateway.http.drain import Drain
from gpt2flow.gateway.http.endpoints import CHAT_COMPLETIONS, COMPLETIONS, GenerationRoutes
from gpt2flow.gateway.http.metrics import GatewayMetrics
from gpt2flow.gateway.http.models import ModelRoutes
from gpt2flow.gateway.http.observation import ObservedApp, fail

MODELS: Final = "/v1/models"
# Paths of requests that a drain waits for.
_API: Final = "/v1/"

# nginx's status of a client that left before its answer.
_CLIENT_LEFT: Final = 499


def build_app(
    config: GatewayConfig,
    backend: Backend,
    drain: Drain,
    templates: ChatTemplates,
    metrics: GatewayMetrics,
    *,
    is_local: bool,
) -> ASGIApp:
    """Return the application of the gateway.

    Args:
        config: Settings of the gateway.
        backend: Connection to the server.
        drain: Drain of the gateway.
        templates: Chat templates of the models.
        metrics: Metrics of the requests.
        is_local: Whether the gateway listens on a loopback address.
    """
    admission = Admission(config, is_local=is_local)
    models = ModelRoutes(backend, admission, drain)
    generations = GenerationRoutes(config, backend, admission, drain, templates)

    async def get_health(_request: Request) -> Response:
        return JSONResponse({"status": "alive"})

    async def get_readiness(_request: Request) -> Response:
        failing = [] if await backend.serves() else ["server"]
        failing += ["draining"] * drain.is_closed
        status = "not ready" if failing else "ready"
        return JSONResponse({"status": status, "failing": failing}, 503 if failing else 200)

    routes = [
        Route(COMPLETIONS, generations.post_completion, methods=["POST"]),
        Route(CHAT_COMPLETIONS, generations.post_chat_completion, methods=["POST"]),
        Route(MODELS, models.get_models, methods=["GET"]),
        Route(f"{MODELS}/{{id:path}}", models.get_model, methods=["GET"]),
        Route("/healthz", get_health, methods=["GET"]),
        Route("/readyz", get_readiness, methods=["GET"]),
        # The name that load generators and routers know from vLLM.
        Route("/health", get_readiness, methods=["GET"], name="get_vllm_health"),
    ]
    router = Router(routes)
    handlers = {
        ApiError: _refuse,
        HTTPException: _refuse_route,
        ClientLeftError: _leave,
        ClientDisconnect: _leave,
        Exception: fail,
    }

    async def drained(scope: Scope, receive: Receive, send: Send) -> None:
        # A router without an application would answer unknown routes itself.
        scope["app"] = router
        if scope["path"].startswith(_API):
            with drain.request():
                await router(scope, receive, send)
        else:
            await router(scope, receive, send)

    paths = {each.name: each.path for each in routes}
    return ObservedApp(ExceptionMiddleware(drained, handlers), metrics, paths)


async def _refuse(_request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return JSONResponse(error.content(), error.status, error.headers)


async def _refuse_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    text = f"{error.detail.lower()}: {request.method} {request.url.path}"
    refusal = ApiError(error.status_code, text, code="unknown_url", headers=error.headers)
    return await _refuse(request, refusal)


async def _leave(_request: Request, _error: Exception) -> Response:
    """Answer a client that nobody reaches any more, for log and metrics."""
    return Response(status_code=_CLIENT_LEFT)
