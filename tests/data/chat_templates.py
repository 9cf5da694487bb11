"""Chat templates that write what those in the folders of today's models write, and tokenizers with their tokens."""

import json
from pathlib import Path

from tests.data.synthetic import byte_tokenizer

_CHATML = r"""
{%- for m in messages %}
    {{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}
"""
_SENTENCE = r"""
{%- if messages[0].role != 'system' %}{{ '<|im_start|>system\nSENTENCE<|im_end|>\n' }}{% endif %}
"""
_QWEN3 = r"""
{%- set last = namespace(asked=messages|length - 1, open=true) %}
{%- for m in messages[::-1] %}
    {%- if last.open and m.role == 'user' %}
        {%- set last.open = false %}
        {%- set last.asked = messages|length - 1 - loop.index0 %}
    {%- endif %}
{%- endfor %}
{%- for m in messages %}
    {%- set said = m.content %}
    {%- set thought = '' %}
    {%- if m.role == 'assistant' and '</think>' in said %}
        {%- set thought = said.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}
        {%- set said = said.split('</think>')[-1].lstrip('\n') %}
    {%- endif %}
    {{- '<|im_start|>' + m.role + '\n' }}
    {%- if m.role == 'assistant' and loop.index0 > last.asked and (loop.last or thought) %}
        {{- '<think>\n' + thought.strip('\n') + '\n</think>\n\n' + said.lstrip('\n') }}
    {%- else %}
        {{- said }}
    {%- endif %}
    {{- '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\n\n</think>\n\n' }}
    {%- endif %}
{%- endif %}
"""
_SMOLLM3 = r"""
{%- set mode = '/think' if enable_thinking is not defined or enable_thinking else '/no_think' -%}
{%- set before = '<think>\n\n</think>\n' if mode == '/no_think' else '' -%}
{{- '<|im_start|>system\n## Metadata\n\nKnowledge Cutoff Date: June 2025\nToday Date: ' -}}
{{- strftime_now('%d %B %Y') ~ '\nReasoning Mode: ' ~ mode ~ '\n\n## Custom Instructions\n\n' -}}
{%- if messages[0].role == 'system' and messages[0].content -%}
    {{- messages[0].content.rstrip() + '\n\n' -}}
{%- elif mode == '/no_think' -%}
    {{- 'You are a helpful AI assistant named SmolLM, trained by Hugging Face.\n\n' -}}
{%- endif -%}
{{- '<|im_end|>\n' -}}
{%- for m in messages -%}
    {%- if m.role == 'user' -%}
        {{ '<|im_start|>user\n' + m.content + '<|im_end|>\n' }}
    {%- elif m.role == 'assistant' -%}
        {% generation %}
        {{- '<|im_start|>assistant\n' + before + m.content.lstrip('\n') + '<|im_end|>\n' -}}
        {% endgeneration %}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' + before }}{%- endif -%}
"""
_LLAMA3 = r"""
{%- for m in messages %}
    {{- bos_token if loop.first else '' }}
    {{- '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + m.content|trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}
"""
_LLAMA3_2 = r"""
{{- bos_token }}
{%- set day = strftime_now('%d %b %Y') if strftime_now is defined else '26 Jul 2024' %}
{%- set sentence = messages[0].content|trim if messages[0].role == 'system' else '' %}
{{- '<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\nToday Date: ' + day }}
{{- '\n\n' + sentence + '<|eot_id|>' }}
{%- for m in messages if m.role != 'system' %}
    {{- '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + m.content|trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}
"""
_GEMMA3 = r"""
{{- bos_token }}
{%- set sentence = messages[0].content + '\n\n' if messages[0].role == 'system' else '' %}
{%- for m in messages if m.role != 'system' %}
    {%- if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('turns do not alternate') }}{% endif %}
    {{- '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\n' }}
    {{- (sentence if loop.first else '') + m.content|trim + '<end_of_turn>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}
"""
_GEMMA2 = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + _GEMMA3
_MISTRAL = r"""
{%- set sentence = messages[0].content + '\n\n' if messages[0].role == 'system' else '' %}
{{- bos_token }}
{%- for m in messages if m.role != 'system' %}
    {%- if m.role == 'user' %}
        {{- ' [INST] ' + (sentence if loop.first else '') + m.content + ' [/INST]' }}
    {%- else %}
        {{- ' ' + m.content + eos_token }}
    {%- endif %}
{%- endfor %}
"""
_MISTRAL3 = r"""
{%- set sentence = messages[0].content + '\n\n' if messages[0].role == 'system' else '' %}
{{- bos_token }}
{%- for m in messages if m.role != 'system' %}
    {%- if m.role == 'user' %}
        {{- '[INST] ' + (sentence if loop.last else '') + m.content + '[/INST]' }}
    {%- else %}
        {{- ' ' + m.content|trim + eos_token }}
    {%- endif %}
{%- endfor %}
"""


def _chatml(sentence: str) -> str:
    return _SENTENCE.replace("SENTENCE", sentence) + _CHATML


CHAT_TEMPLATES = {  # by the name of ours
    "chatml": _CHATML,
    "qwen2_instruct": _chatml("You are a helpful assistant."),
    "qwen2.5": _chatml("You are Qwen, created by Alibaba Cloud. You are a helpful assistant."),
    "qwen3": _QWEN3,
    "smollm2": _chatml("You are a helpful AI assistant named SmolLM, trained by Hugging Face"),
    "smollm3": _SMOLLM3,
    "llama3_instruct": _LLAMA3,
    "llama3.2_instruct": _LLAMA3_2,
    "gemma": _GEMMA3,
    "mistral": _MISTRAL,
    "mistral_v0.3": _MISTRAL3,
}
WITHOUT_SYSTEM = {"gemma": _GEMMA2}
TOKENS = {
    "llama3": ("<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"),
    "gemma": ("<bos>", "<end_of_turn>", "<start_of_turn>"),
    "mistral": ("<s>", "</s>", "[INST]", "[/INST]"),
}


def write_folder(folder: Path, name: str, text: str, in_config: bool = False) -> Path:
    """Write a tokenizer of single bytes with the tokens of the template `name`, and the chat template `text`.

    in_config: into tokenizer_config.json, as older folders have it.
    """
    kind = next((kind for kind in TOKENS if name.startswith(kind)), "")
    tokens = TOKENS.get(kind, ("<|im_end|>", "<|im_start|>"))
    byte_tokenizer(tokens).save(folder)
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": tokens[1]}
    if kind:
        config["bos_token"] = tokens[0]
        path = folder / "tokenizer.json"
        fields = json.loads(path.read_text())
        pieces = [{"SpecialToken": {"id": tokens[0], "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
        special = {tokens[0]: {"id": tokens[0], "ids": [256], "tokens": [tokens[0]]}}
        pair = [*pieces, {"Sequence": {"id": "B", "type_id": 1}}]
        processor = {"type": "TemplateProcessing", "single": pieces, "pair": pair, "special_tokens": special}
        path.write_text(json.dumps(fields | {"post_processor": processor}))
    if in_config:
        config["chat_template"] = text
    else:
        (folder / "chat_template.jinja").write_text(text)
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder
