"""Makes requests that fit the document also make sense, and cheap: what a schema cannot say.

Changes bodies in place, as plain JSON; knows the wire format, and neither the server nor schemathesis.
"""

import json

MODEL = "callsmith"
# Below the built-in model's vocabulary.
TOKENS = 4000
# Of an answer here; and choices that the document allows.
MOST_TOKENS, MOST_CHOICES = 4, 128
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
HEADER_LENGTH = "Inference-Header-Content-Length"
LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
# The limit that a request takes which has this member.
OWN_LIMIT = {"messages": "max_completion_tokens", "input": "max_output_tokens", "text_input": "max_tokens"}
FORMS = {"json": SCHEMA, "json_object": True, "regex": "[a-z]+", "choice": ["yes", "no"], "grammar": 'start: "yes"'}
# Members that say what an answer may be.
RULES = ("tools", "response_format", "structured_outputs", "text")
# Members of Triton's parameters that may come as JSON text, and what they say here.
AS_TEXT = {
    "tools": [{"type": "function", "function": {"name": "f"}}],
    "tool_choice": "auto",
    "response_format": {"type": "text"},
    "structured_outputs": {},
    "logit_bias": {},
    "sampling_parameters": {},
}


def whole(value):
    """The same with integers as integers: JSON Schema takes 2.0 for one, the server does not."""
    if isinstance(value, dict):
        return {key: whole(item) for key, item in value.items()}
    if isinstance(value, list):
        return [whole(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value


def is_count(value):
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value < 2**31


def cheap(body):
    """Few tokens and few choices, unless the request asks for a wrong number of them."""
    inner = body.get("parameters")
    places = [fields for fields in (body, inner) if isinstance(fields, dict)]
    for fields in places:
        for limit in LIMITS:
            if is_count(fields.get(limit)):
                fields[limit] = min(fields[limit], MOST_TOKENS)
        if is_count(fields.get("n")) and fields["n"] <= MOST_CHOICES:
            fields["n"] = min(fields["n"], 2)
    if any(limit in fields for limit in LIMITS for fields in places):
        return
    body |= {limit: MOST_TOKENS for member, limit in OWN_LIMIT.items() if member in body}
    if "inputs" in body and isinstance(inner, dict | None):
        body["parameters"] = {**(inner or {}), "max_tokens": MOST_TOKENS}


def sensible(body):
    """Mends what contradicts itself or names what is not there."""
    if isinstance(body.get("parameters"), dict) and ("text_input" in body or "inputs" in body):
        triton(body["parameters"])
    if "text_input" in body and body.get("logprobs"):
        body["details"] = True
    if "inputs" in body:
        text = {"data": "How warm is it?"} | body["inputs"][0] | {"name": "text_input"}
        # Data that follows the JSON does so in `binary_inference`.
        text.pop("parameters", None)
        body["inputs"] = [text]
    generation(body)
    if isinstance(body.get("messages"), list):
        body["messages"] = [piece for message in body["messages"] for piece in answered(message)]
    if isinstance(body.get("input"), list):
        body["input"] = [piece for item in body["input"] for piece in answered_item(item)]
    if isinstance(body.get("prompt"), list):
        body |= {"prompt": tokens(body["prompt"]), "n": 1}
    if isinstance(body.get("tokens"), list):
        body["tokens"] = tokens(body["tokens"])


def tokens(value):
    """Token ids of the built-in model, in lists of any depth."""
    if isinstance(value, list):
        return [tokens(item) for item in value]
    return value % TOKENS if isinstance(value, int) else value


def generation(fields):
    """Mends the fields that every request for an answer may have."""
    if "max_tokens" in fields and "max_completion_tokens" in fields:
        del fields["max_tokens"]
    if fields.get("top_logprobs") is not None and isinstance(fields.get("messages"), list):
        fields["logprobs"] = True
    if fields.get("stream_options") is not None:
        fields["stream"] = True
    if fields.get("best_of") is not None:
        fields["n"] = fields["best_of"] = 1
    if fields.get("echo") and "logprobs" in fields:
        del fields["logprobs"]
    if fields.get("previous_response_id") is not None:
        del fields["previous_response_id"]
    if isinstance(fields.get("logit_bias"), dict):
        given = fields["logit_bias"].items()
        fields["logit_bias"] = {str(int(key) % TOKENS): bias for key, bias in given if bias is not None}
    calls(fields)
    form(fields)
    # Free text alone can go on for ever.
    if fields.get("ignore_eos") and any(fields.get(rule) for rule in RULES):
        fields["ignore_eos"] = False


def calls(fields):
    """Tools with names of their own and schemas that can be enforced, and a choice among them."""
    # On routes without tools the member may be an empty text.
    tools = fields.get("tools") or []
    if not isinstance(tools, list):
        return
    for index, tool in enumerate(tools):
        function = tool.get("function", tool)
        function["name"] = f"f{index}"
        if function.get("parameters") is not None:
            function["parameters"] = SCHEMA
    choice = fields.get("tool_choice")
    if choice is not None and not tools:
        del fields["tool_choice"]
    elif isinstance(choice, dict):
        allowed = choice.get("allowed_tools", choice)
        for named in allowed.get("tools", [choice]):
            named.get("function", named)["name"] = "f0"


def form(fields):
    """One form at most, one that can be enforced, and no calls beside it."""
    structured = fields.get("structured_outputs")
    if isinstance(structured, dict):
        wanted = [key for key in FORMS if structured.get(key) not in (None, False)]
        fields["structured_outputs"] = {key: FORMS[key] for key in wanted[:1]}
        fields.pop("response_format", None)
    text = fields.get("text")
    asked = fields.get("response_format") or (text.get("format") if isinstance(text, dict) else None)
    if isinstance(asked, dict):
        described = asked.get("json_schema", asked)
        if "schema" in described:
            described["schema"] = SCHEMA
    if fields.get("tools") and (asked or structured):
        fields["tool_choice"] = "none"


def answered(message):
    """A message, and after it a result for each of its calls. Results of nothing are left out."""
    if message.get("role") == "tool":
        return [{"role": "user", "content": message["content"]}]
    calls = message.get("tool_calls") or []
    for index, call in enumerate(calls):
        call["id"] = f"call {index}"
        call["function"]["arguments"] = "{}"
    return [message, *({"role": "tool", "tool_call_id": call["id"], "content": "done"} for call in calls)]


def answered_item(item):
    """The same of an item of a response's input."""
    if item.get("type") == "function_call_output":
        return []
    if item.get("type") != "function_call":
        return [item]
    item["arguments"] = "{}"
    return [item, {"type": "function_call_output", "call_id": item["call_id"], "output": "done"}]


def triton(parameters):
    """The same where some members may come as JSON text."""
    texts = [name for name in AS_TEXT if is_json(parameters.get(name))]
    parameters |= {name: AS_TEXT[name] for name in texts}
    # The longest lists are tried with chat completions.
    if isinstance(parameters.get("tools"), list):
        parameters["tools"] = parameters["tools"][:2]
    if isinstance(parameters.get("sampling_parameters"), dict):
        parameters["sampling_parameters"] = {"temperature": 0.5}
    generation(parameters)
    parameters |= {name: json.dumps(parameters[name]) for name in texts if name in parameters}
    if is_json(parameters.get("stop")):
        parameters["stop"] = "."


def is_json(value):
    """The server reads it as JSON."""
    return isinstance(value, str) and value.lstrip()[:1] in ("[", "{")


def binary_inference():
    """A whole body whose text follows the JSON, and the header that says where."""
    text = b"How warm is it?"
    data = len(text).to_bytes(4, "little") + text
    tensor = {"name": "text_input", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(data)}}
    outputs = [{"name": "text_output", "parameters": {"binary_data": True}}]
    header = json.dumps({"inputs": [tensor], "outputs": outputs, "parameters": {"max_tokens": MOST_TOKENS}}).encode()
    return header + data, str(len(header))
