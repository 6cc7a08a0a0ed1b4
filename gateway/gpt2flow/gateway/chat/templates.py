"""Chat templates in Jinja, with the conventions of transformers."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NoReturn

from jinja2 import TemplateError, meta
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from gpt2flow.files.documents import read_object
from gpt2flow.gateway.errors import GatewayConfigError, invalid_field

_CONFIG: Final = "tokenizer_config.json"
_SPECIAL: Final = ("bos_token", "eos_token")


class ChatTemplate:
    """Template of the text that a model was trained on.

    Args:
        source: Text of the template.
        origin: Name of its file, for errors.
        special_tokens: Texts of special tokens, by the names that the template may use.

    Raises:
        GatewayConfigError: The template is invalid, or uses a special token that is not known.
    """

    def __init__(self, source: str, origin: str, special_tokens: Mapping[str, str]) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = _strftime_now
        try:
            used = meta.find_undeclared_variables(environment.parse(source))
            self._template = environment.from_string(source)
        except TemplateError as error:
            raise GatewayConfigError(f"chat_template {origin}: {error}") from error
        for name in _SPECIAL:
            if name in used and name not in special_tokens:
                raise GatewayConfigError(
                    f"chat_template {origin}: uses {name}, which a {_CONFIG} beside it must name"
                )
        self._special_tokens = dict(special_tokens)

    def render(self, messages: Sequence[Mapping[str, Any]], variables: Mapping[str, Any]) -> str:
        """Return the text of messages.

        Args:
            messages: Messages in the form of transformers.
            variables: Further variables, such as `add_generation_prompt` and `tools`.

        Raises:
            ApiError: The template refuses the messages, or fails on them.
        """
        try:
            return self._template.render(
                {
                    **self._special_tokens,
                    **variables,
                    "messages": messages,
                }
            )
        except Exception as error:
            # A template can fail in any way on messages that it does not expect.
            reason = " ".join(str(error).split())
            raise invalid_field("messages", f"the chat template refuses them: {reason}") from error


class ChatTemplates:
    """Templates of the models.

    Args:
        given: Files, each as `[MODEL=]FILE`; one without a model is that of all others.

    Raises:
        GatewayConfigError: A file is invalid, or a model has two.
    """

    def __init__(self, given: Sequence[str] = ()) -> None:
        self._templates: dict[str, ChatTemplate] = {}
        for each in given:
            model, separator, path = each.partition("=")
            if not separator:
                model, path = "", each
            if model in self._templates:
                raise GatewayConfigError(
                    f"chat_template {each}: {model or 'the default'} has two templates"
                )
            self._templates[model] = read_template(Path(path))

    def get(self, model: str) -> ChatTemplate | None:
        """Return the template of a model; None without one."""
        return self._templates.get(model) or self._templates.get("")


def read_template(path: Path) -> ChatTemplate:
    """Read a template, and the special tokens that its tokenizer has.

    Args:
        path: Template in Jinja, or a `tokenizer_config.json` that holds one.

    Raises:
        GatewayConfigError: A file is unreadable or invalid.
    """
    if path.suffix != ".json":
        try:
            source = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "is not UTF-8"
            raise GatewayConfigError(f"chat_template {path}: {reason}") from error
        config = read_object(path.with_name(_CONFIG), GatewayConfigError)
        return ChatTemplate(source, str(path), _special_tokens(config))
    if not path.is_file():
        raise GatewayConfigError(f"chat_template {path}: there is no such file")
    config = read_object(path, GatewayConfigError)
    source = config.get("chat_template", "")
    if not isinstance(source, str) or not source:
        raise GatewayConfigError(f"chat_template {path}: has no text chat_template")
    return ChatTemplate(source, str(path), _special_tokens(config))


def _special_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the texts of special tokens, whose values may be objects."""
    found = {}
    for name, value in config.items():
        text = value.get("content") if isinstance(value, dict) else value
        if name.endswith("_token") and isinstance(text, str):
            found[name] = text
    return found


def _to_json(value: Any, **options: Any) -> str:
    # Unlike Jinja's own filter, that of transformers escapes nothing for HTML.
    return json.dumps(value, **{"ensure_ascii": False} | options)


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.now().astimezone().strftime(form)
