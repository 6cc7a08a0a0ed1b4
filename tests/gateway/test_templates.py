"""Chat templates: the text of transformers, and errors of files."""

import json
from pathlib import Path
from typing import Any

import pytest

from gpt2flow.gateway.chat.templates import ChatTemplate, ChatTemplates, read_template
from gpt2flow.gateway.errors import ApiError, GatewayConfigError

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}
MESSAGES: list[dict[str, Any]] = [
    {"role": "system", "content": " Be brief.\n"},
    {"role": "user", "content": 'Hi & <b>"you"</b>\n你好'},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "Weather?"},
]
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Köln"}}}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "Weather of a city",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    }
]
TEMPLATES = {
    "marked": """{{ bos_token }}
{%- for message in messages %}
    {%- if loop.index0 and message.role == "system" %}{% continue %}{% endif %}
{{ '<|' ~ message.role ~ '|>\\n' ~ message.content | trim ~ eos_token }}
{% endfor %}
{% if add_generation_prompt %}<|assistant|>
{% endif %}""",
    "tools": """{% if tools %}Tools: {{ tools | tojson(indent=2) }}
{% endif %}
{% for message in messages if message.content is not none %}
[{{ message['role'] | upper }}] {{ message["content"] }}
{%- if message.tool_calls %} {{ message.tool_calls[0].function.arguments | tojson }}{% endif %}

{% endfor %}""",
    "state": """{% set ns = namespace(n=0) %}
{% for message in messages %}
{% if message.role != "system" %}{% set ns.n = ns.n + 1 %}{% endif %}
{% endfor %}
{{ ns.n }} {{ style | default("plain") }} {{ strftime_now("%Y") | length }}""",
}


@pytest.mark.parametrize("name", sorted(TEMPLATES))
@pytest.mark.parametrize("ending", ["with prompt", "bare"])
def test_the_text_is_that_of_transformers(name: str, ending: str) -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    messages = [*MESSAGES, {"role": "assistant", "content": "", "tool_calls": [CALL]}]
    variables = {"add_generation_prompt": ending == "with prompt", "style": "formal"}
    expected, _ = render_jinja_template(
        [messages], tools=TOOLS, chat_template=TEMPLATES[name], **variables, **SPECIAL
    )
    template = ChatTemplate(TEMPLATES[name], "file", SPECIAL)
    assert [template.render(messages, {**variables, "tools": TOOLS})] == expected


def test_a_template_can_refuse_messages() -> None:
    template = ChatTemplate("{{ raise_exception('roles must\nalternate') }}", "file", {})
    with pytest.raises(ApiError) as caught:
        template.render(MESSAGES, {})
    assert (caught.value.status, caught.value.param) == (400, "messages")
    assert "roles must alternate" in caught.value.message


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages[0].content.nothing.more }}",
        "{{ messages[0].content + 1 }}",
        "{{ 1 // 0 }}",
        "{% for i in range(999999999) %}x{% endfor %}",
        "{{ messages.append(1) }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    ],
)
def test_a_template_that_fails_or_escapes_is_an_error_of_the_request(source: str) -> None:
    with pytest.raises(ApiError, match="the chat template refuses them"):
        ChatTemplate(source, "file", {}).render(MESSAGES, {})


def test_variables_of_a_request_replace_no_messages() -> None:
    template = ChatTemplate("{{ messages | length }}", "file", {})
    assert template.render(MESSAGES, {"messages": []}) == "4"


def test_a_template_must_be_known_with_its_special_tokens() -> None:
    with pytest.raises(GatewayConfigError, match="file: uses eos_token, which a tokenizer_config"):
        ChatTemplate("{{ eos_token }}", "file", {"bos_token": "<s>"})
    with pytest.raises(GatewayConfigError, match="file: "):
        ChatTemplate("{% if %}", "file", {})


def test_a_file_is_read_with_the_configuration_beside_it(tmp_path: Path) -> None:
    config = {"bos_token": {"content": "<s>"}, "eos_token": "</s>", "chat_template": "{{ 7 }}"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "chat_template.jinja").write_text("{{ bos_token }}{{ eos_token }}")
    assert read_template(tmp_path / "chat_template.jinja").render([], {}) == "<s></s>"
    assert read_template(tmp_path / "tokenizer_config.json").render([], {}) == "7"


def test_a_model_has_its_own_template_or_the_default(tmp_path: Path) -> None:
    for name in ("own", "default"):
        (tmp_path / name).write_text(name)
    templates = ChatTemplates([f"m={tmp_path / 'own'}", str(tmp_path / "default")])
    found = [templates.get(model) for model in ("m", "other")]
    assert [each and each.render([], {}) for each in found] == ["own", "default"]
    assert ChatTemplates().get("m") is None


@pytest.mark.parametrize(
    "name, content, words",
    [
        ("absent.jinja", None, "No such file"),
        ("absent.json", None, "there is no such file"),
        ("a.jinja", b"\xff", "is not UTF-8"),
        ("a.json", b"{", "cannot be read as JSON"),
        ("a.json", b"[]", "does not hold a JSON object"),
        ("a.json", b"{}", "has no text chat_template"),
        ("a.json", b'{"chat_template": [{"name": "default"}]}', "has no text chat_template"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, name: str, content: bytes | None, words: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(GatewayConfigError) as caught:
        read_template(path)
    assert str(path) in str(caught.value)
    assert words in str(caught.value)


def test_a_model_cannot_have_two_templates(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    with pytest.raises(GatewayConfigError, match="m has two templates"):
        ChatTemplates([f"m={tmp_path / 'a'}", f"m={tmp_path / 'a'}"])
    with pytest.raises(GatewayConfigError, match="the default has two templates"):
        ChatTemplates([str(tmp_path / "a"), str(tmp_path / "a")])
