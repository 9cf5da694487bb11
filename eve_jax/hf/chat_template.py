"""The chat template of an export: a conversation as this project writes it, for readers of Hugging Face folders.

Rendered and encoded piece by piece (`text_ids` in torch_eve/inputs_eve.py), it gives the ids of
`eve_jax.data.text.encode.prompt_ids`. Images are parts of a message's content, on lines of their own. In a conversation
with such parts, `<image>` in texts is escaped; in one without, texts stay as they are, and a reader that places images
by markers in texts may do so.
"""

import json
from dataclasses import fields

from eve_jax.data.text.templates import Template

NOT_WRITTEN = ("caption", "strip", "tokens", "day")  # fields of a `Template` that say nothing of dialogues' texts

_PARTS = """\
{%- set images = namespace(count=0) -%}
{%- for message in messages -%}
  {%- if message.content is not string -%}
    {%- for part in message.content -%}
      {%- if part.type in ["image", "image_url"] -%}{%- set images.count = images.count + 1 -%}{%- endif -%}
    {%- endfor -%}
  {%- endif -%}
{%- endfor -%}
{%- macro escaped(text) -%}
  {%- if images.count -%}
    {%- for piece in text.split("<image>") -%}
      {{- piece -}}
      {%- if not loop.last -%}
        {{- "\\\\" * (piece|length - piece.rstrip("\\\\")|length + 1) ~ "<image>" -}}
      {%- endif -%}
    {%- endfor -%}
  {%- else -%}
    {{- text -}}
  {%- endif -%}
{%- endmacro -%}
{%- macro written(content, is_user) -%}
  {%- set own = namespace(text="", bare="", count=0, after_image=false) -%}
  {%- if content is string -%}
    {%- set own.text = escaped(content) -%}
  {%- else -%}
    {%- for part in content -%}
      {%- if part.type == "text" -%}
        {%- if part.text -%}
          {%- set line = "\\n" if own.after_image and not part.text.startswith("\\n") else "" -%}
          {%- set own.text = own.text ~ line ~ escaped(part.text) -%}
          {%- set own.bare = own.bare ~ line ~ escaped(part.text) -%}
          {%- set own.after_image = false -%}
        {%- endif -%}
      {%- elif part.type in ["image", "image_url"] and is_user -%}
        {%- set line = "\\n" if own.text and not own.text.endswith("\\n") else "" -%}
        {%- set own.text = own.text ~ line ~ "<image>" -%}
        {%- set own.bare = own.bare ~ line -%}
        {%- set own.count = own.count + 1 -%}
        {%- set own.after_image = true -%}
      {%- else -%}
        {{- raise_exception("a part of a message is a text or, of the user's, an image; not " ~ part.type) -}}
      {%- endif -%}
    {%- endfor -%}
  {%- endif -%}
  {%- if image_first and own.count -%}
    {{- "\\n".join(["<image>"] * own.count) ~ ("\\n" ~ own.bare.strip() if own.bare.strip() else "") -}}
  {%- else -%}
    {{- own.text -}}
  {%- endif -%}
{%- endmacro -%}
"""

_CONVERSATION = """\
{%- set turns = messages -%}
{%- set given = namespace(system=system) -%}
{%- if messages and messages[0].role in ["system", "developer"] -%}
  {%- set given.system = written(messages[0].content, false) -%}
  {%- set turns = messages[1:] -%}
{%- endif -%}
{{- bos -}}
{%- if not inside and (given.system or header_alone or not system_begin) -%}
  {{- system_begin ~ (given.system|trim if trim == "all" else given.system) ~ system_end -}}
{%- endif -%}
{%- for message in turns -%}
  {%- if message.role != ["user", "assistant"][loop.index0 % 2] -%}
    {{- raise_exception("after at most one system message, turns of user and assistant alternate, the user's first") -}}
  {%- endif -%}
  {%- if message.role == "user" -%}
    {%- set question = written(message.content, true) -%}
    {{- ("" if loop.first else answer_end) ~ human -}}
    {{- given.system ~ system_end if inside and loop.first and given.system else "" -}}
    {{- (question|trim if trim == "all" else question) ~ human_end -}}
  {%- else -%}
    {%- set answer = written(message.content, false) -%}
    {%- set block = thought if each_thought or loop.last else "" -%}
    {%- if thought and not each_thought -%}
      {%- set answer = answer.split("</think>")[-1].lstrip("\\n") if "</think>" in answer else answer -%}
    {%- endif -%}
    {%- set answer = answer|trim if trim else answer -%}
    {%- set answer = answer.lstrip("\\n") if block else answer -%}
    {{- gpt ~ block ~ (answer_begin ~ answer if answer else "") ~ end ~ after -}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- gpt ~ thought -}}{%- endif -%}
"""


def chat_template(template: Template, bos: str = "", image_first: bool = False) -> str:
    """Return the Jinja text of the dialogue `template`, with the token `bos` before everything.

    With `image_first` the images of a turn go to its front, as in training.
    """
    names = [field.name for field in fields(template) if field.name not in NOT_WRITTEN]
    values: dict[str, str | bool] = {"bos": bos, "image_first": image_first}
    values |= {name: getattr(template, name) for name in names}
    # A JSON string is a Jinja string: both escape quotes, backslashes and what is not ASCII in the same way.
    settings = "".join(f"{{%- set {name} = {json.dumps(value)} -%}}\n" for name, value in values.items())
    return settings + _PARTS + _CONVERSATION
