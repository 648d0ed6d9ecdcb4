#!/usr/bin/env python3
"""The official openai package against a running server on real models: every endpoint, format and class of error.

usage: openai_clients.py BASE_URL [--key KEY] [--only WORD]

BASE_URL ends in /v1. The server must run already, on the starter models, with nobody else talking to it; start it with
AICHAT_API_KEY and say the key with --key, or the check of wrong keys is left out. --only runs the checks with WORD in
their names. openai_clients.mjs is the same suite for JavaScript. Needs: openai (pip install openai).
"""
import argparse, json, sys, time

import openai

FIRST_TOKEN_SECONDS = 1.0
CHECKS = []
KEY = {}


def check(function):
    CHECKS.append(function)
    return function


def user(text):
    return [{"role": "user", "content": text}]


def refused(error_class, call, param=None):
    """Checks that `call` raises `error_class` and names `param`."""
    try:
        call()
    except error_class as error:
        assert param is None or error.param == param, f"param {error.param!r} instead of {param!r}: {error}"
        return error
    raise AssertionError(f"no {error_class.__name__}")


def chat(client, text="Say hello.", **more):
    return client.chat.completions.create(**{"model": "local", "messages": user(text), "max_tokens": 24, **more})


WEATHER = {"type": "function", "function": {"name": "get_weather", "description": "Tells the weather in a city.",
           "parameters": {"type": "object", "properties": {"city": {"type": "string", "maxLength": 20}}, "required": ["city"],
                          "additionalProperties": False}}}
TIME = {"type": "function", "function": {"name": "get_time", "description": "Tells the time."}}
PERSON = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer", "minimum": 0, "maximum": 120}},
          "required": ["name", "age"], "additionalProperties": False}


# Models


@check
def models_are_listed(client):
    names = [model.id for model in client.models.list()]
    assert {"local", "whisper-1", "tts-1"} <= set(names), names
    for name in names:
        assert client.models.retrieve(name).id == name
    refused(openai.NotFoundError, lambda: client.models.retrieve("no-such-model"), "model")


# Chat


@check
def chat_whole(client):
    raw = client.chat.completions.with_raw_response.create(model="local", messages=user("Say hello."), max_tokens=16, temperature=0)
    answer, served_by = raw.parse(), raw.headers["x-served-by"]
    assert answer.object == "chat.completion" and answer.id.startswith("chatcmpl-") and answer.model == served_by, answer
    assert answer.choices[0].message.content and answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason in ("stop", "length")
    usage = answer.usage
    assert 0 < usage.completion_tokens <= 16 and usage.total_tokens == usage.prompt_tokens + usage.completion_tokens, usage
    again = chat(client, max_tokens=16, temperature=0)
    assert again.choices[0].message.content == answer.choices[0].message.content
    assert again.usage.prompt_tokens_details.cached_tokens > 0 and again.system_fingerprint == answer.system_fingerprint


@check
def chat_stream_is_the_whole_in_parts(client):
    whole = chat(client, temperature=0).choices[0]
    chunks = list(chat(client, temperature=0, stream=True, stream_options={"include_usage": True}))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == whole.message.content
    assert chunks[0].choices[0].delta.role == "assistant" and len({c.id for c in chunks}) == 1
    assert [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason] == [whole.finish_reason]
    assert not chunks[-1].choices and chunks[-1].usage.completion_tokens > 0 and len(chunks) > 5


@check
def chat_first_token_under_a_second(client):
    chat(client, max_tokens=4)
    times = []
    for number in range(5):
        begun = time.monotonic()
        with chat(client, f"What is {number} and {number}?", stream=True) as stream:
            for chunk in stream:
                if chunk.choices and chunk.choices[0].delta.content:
                    times.append(time.monotonic() - begun)
                    break
    print("    first token after " + ", ".join(f"{seconds:.3f}" for seconds in times) + " s")
    assert len(times) == 5 and max(times) < FIRST_TOKEN_SECONDS, times


@check
def chat_stop_seed_and_limits(client):
    story = dict(text="Tell me a story about a fox.", max_tokens=40, seed=7, temperature=1.2)
    one, two = (chat(client, **story).choices[0].message.content for _ in range(2))
    assert one == two, (one, two)
    stop = one[8:12]
    stopped = chat(client, **story, stop=[stop, "\u0001"]).choices[0]
    assert stopped.message.content == one[:one.index(stop)] and stopped.finish_reason == "stop", stopped
    endless = chat(client, max_completion_tokens=12, extra_body={"ignore_eos": True})
    assert endless.usage.completion_tokens == 12 and endless.choices[0].finish_reason == "length", endless
    least = chat(client, max_tokens=30, extra_body={"min_tokens": 20})
    assert least.usage.completion_tokens >= 20, least.usage


@check
def chat_several_choices(client):
    answer = chat(client, "Name an animal.", n=3, seed=1, temperature=1.5, max_tokens=12)
    assert [choice.index for choice in answer.choices] == [0, 1, 2] and all(c.message.content for c in answer.choices)
    assert len({choice.message.content for choice in answer.choices}) > 1
    texts, reasons, order = {}, {}, []
    for chunk in chat(client, "Name an animal.", n=3, seed=1, temperature=1.5, max_tokens=12, stream=True):
        for choice in chunk.choices:
            texts[choice.index] = texts.get(choice.index, "") + (choice.delta.content or "")
            order.append(choice.index)
            if choice.finish_reason:
                reasons[choice.index] = choice.finish_reason
    assert [texts[i] for i in range(3)] == [choice.message.content for choice in answer.choices] and len(reasons) == 3
    assert order != sorted(order), "the choices come one after the other"


@check
def chat_logprobs_and_logit_bias(client):
    choice = chat(client, temperature=0, logprobs=True, top_logprobs=3, max_tokens=8).choices[0]
    tokens = choice.logprobs.content
    assert "".join(token.token for token in tokens) == choice.message.content, choice
    for token in tokens:
        assert token.logprob <= 0 and len(token.top_logprobs) == 3 and token.top_logprobs[0].token == token.token
    streamed = [token for chunk in chat(client, temperature=0, logprobs=True, max_tokens=8, stream=True)
                for c in chunk.choices if c.logprobs for token in c.logprobs.content]
    assert [token.token for token in streamed] == [token.token for token in tokens]
    biased = chat(client, temperature=0, logit_bias={"28": 100}, max_tokens=5, extra_body={"ignore_eos": True}).choices[0]
    assert len(set(biased.message.content)) == 1, biased
    refused(openai.BadRequestError, lambda: chat(client, logit_bias={"99999999": 1}), "logit_bias")


@check
def chat_penalties(client):
    def most_common(**more):
        content = chat(client, "Count from 1 to 100.", temperature=0, max_tokens=60, logprobs=True, **more).choices[0].logprobs.content
        tokens = [token.token for token in content]
        return max(tokens.count(token) for token in tokens)
    assert most_common(frequency_penalty=2) < most_common()
    chat(client, presence_penalty=-2, frequency_penalty=0.5)
    refused(openai.BadRequestError, lambda: chat(client, presence_penalty=2.5), "presence_penalty")


@check
def chat_tools(client):
    ask = "What is the weather in Paris?"
    answer = chat(client, ask, tools=[WEATHER, TIME], tool_choice="required", parallel_tool_calls=False, max_tokens=80)
    choice = answer.choices[0]
    assert choice.finish_reason == "tool_calls" and len(choice.message.tool_calls) == 1, choice
    assert choice.message.tool_calls[0].function.name in ("get_weather", "get_time")
    named = {"type": "function", "function": {"name": "get_weather"}}
    call = chat(client, ask, tools=[WEATHER, TIME], tool_choice=named, max_tokens=80).choices[0].message.tool_calls[0]
    assert call.function.name == "get_weather" and isinstance(json.loads(call.function.arguments)["city"], str), call
    parts = [c.choices[0].delta.tool_calls[0] for c in chat(client, ask, tools=[WEATHER], tool_choice=named, max_tokens=80, stream=True)
             if c.choices and c.choices[0].delta.tool_calls]
    assert parts[0].id and parts[0].function.name == "get_weather" and all(part.id is None for part in parts[1:]) and len(parts) > 1
    assert "city" in json.loads("".join(part.function.arguments for part in parts))
    after = [*user(ask), {"role": "assistant", "tool_calls": [call.model_dump()]},
             {"role": "tool", "tool_call_id": call.id, "content": "Sunny, 21 degrees."}]
    assert chat(client, messages=after, tools=[WEATHER]).choices[0].finish_reason
    assert not chat(client, ask, tools=[WEATHER], tool_choice="none").choices[0].message.tool_calls


@check
def chat_shapes(client):
    for temperature in (0, 1.5):
        text = chat(client, "Describe a person as JSON.", response_format={"type": "json_object"}, temperature=temperature, max_tokens=200).choices[0]
        if text.finish_reason == "stop":
            assert isinstance(json.loads(text.message.content), dict)
        for strict in (True, False):
            shape = {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON, "strict": strict}}
            choice = chat(client, "Describe Ann, who is 30.", response_format=shape, temperature=temperature, max_tokens=120).choices[0]
            person = json.loads(choice.message.content)
            assert isinstance(person["name"], str) and 0 <= person["age"] <= 120 and len(person) == 2, person
    streamed = chat(client, "Describe Bob.", response_format=shape, stream=True, max_tokens=120)
    assert json.loads("".join(c.choices[0].delta.content or "" for c in streamed if c.choices))["name"] is not None
    endless = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"$ref": "#"}}}
    refused(openai.BadRequestError, lambda: chat(client, response_format=endless), "response_format")


@check
def chat_roles_parts_and_thoughts(client):
    messages = [{"role": "developer", "content": "Be brief."}, {"role": "system", "content": "Be kind."},
                {"role": "user", "content": [{"type": "text", "text": "Hello."}, {"type": "text", "text": "Who are you?"}]}]
    answer = chat(client, messages=messages, reasoning_effort="low", user="somebody", metadata={"a": "b"}, store=False)
    assert answer.choices[0].message.content
    assert not hasattr(chat(client).choices[0].message, "reasoning_content")
    image = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]}]
    refused(openai.BadRequestError, lambda: chat(client, messages=image), "messages[0].content[0].type")


@check
def chat_stream_can_be_left(client):
    for _ in range(20):
        with chat(client, "Tell me a very long story.", max_tokens=2000, stream=True, extra_body={"ignore_eos": True}) as stream:
            next(iter(stream))
    # More than the server takes at once: they were not written on.
    begun = time.monotonic()
    chat(client, max_tokens=4)
    assert time.monotonic() - begun < 5


# Completions


def text(client, prompt="Once upon a time", **more):
    return client.completions.create(**{"model": "local", "prompt": prompt, "max_tokens": 12, "temperature": 0, **more})


@check
def completions(client):
    answer = text(client, logprobs=2)
    choice = answer.choices[0]
    assert answer.object == "text_completion" and choice.text and answer.usage.completion_tokens <= 12
    assert "".join(choice.logprobs.tokens) == choice.text and len(choice.logprobs.top_logprobs[0]) == 2
    assert choice.logprobs.text_offset[1] == len(choice.logprobs.tokens[0])
    chunks = list(text(client, stream=True, stream_options={"include_usage": True}))
    assert "".join(c.choices[0].text for c in chunks if c.choices) == choice.text and chunks[-1].usage.total_tokens > 0
    several = text(client, ["The sun is", "The moon is"], n=2, temperature=1)
    assert [c.index for c in several.choices] == [0, 1, 2, 3]
    stopped = text(client, stop=choice.text[6:9])
    assert stopped.choices[0].text == choice.text[:choice.text.index(choice.text[6:9])]
    exact = text(client, max_tokens=30, extra_body={"ignore_eos": True, "min_tokens": 30})
    assert exact.usage.completion_tokens == 30 and exact.choices[0].finish_reason == "length"
    for field, value in (("echo", True), ("suffix", "end"), ("best_of", 2), ("prompt", [1, 2, 3]), ("prompt", "word " * 100_000)):
        refused(openai.BadRequestError, lambda: text(client, **{field: value}), field)


# Errors


@check
def errors_have_their_classes(client):
    refused(openai.BadRequestError, lambda: chat(client, temperature=11), "temperature")
    refused(openai.BadRequestError, lambda: chat(client, messages=[]), "messages")
    refused(openai.BadRequestError, lambda: chat(client, messages=[{"role": "king", "content": "a"}]), "messages[0].role")
    refused(openai.BadRequestError, lambda: chat(client, "word " * 50_000, stream=True), "messages")
    refused(openai.NotFoundError, lambda: chat(client, model="no-such-model"), "model")
    refused(openai.NotFoundError, lambda: client.post("/nothing", body={}, cast_to=object))
    error = refused(openai.APIStatusError, lambda: chat(client, "x" * 3_000_000))
    assert error.status_code == 413, error
    if KEY:
        wrong = client.with_options(api_key="wrong")
        assert refused(openai.AuthenticationError, lambda: chat(wrong)).type == "authentication_error"


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("base_url")
    options.add_argument("--key")
    options.add_argument("--only", default="")
    o = options.parse_args()
    if o.key:
        KEY["set"] = True
    client = openai.OpenAI(base_url=o.base_url, api_key=o.key or "none", max_retries=0, timeout=120)
    failed = 0
    for function in CHECKS:
        if o.only not in function.__name__:
            continue
        begun = time.monotonic()
        try:
            function(client)
            outcome = "ok"
        except Exception as error:
            failed += 1
            outcome = f"FAILED: {type(error).__name__}: {error} (line {error.__traceback__.tb_next and error.__traceback__.tb_next.tb_lineno})"
        print(f"{function.__name__}: {outcome} ({time.monotonic() - begun:.1f} s)", flush=True)
    print(f"{failed} failed" if failed else "ok")
    sys.exit(bool(failed))


main()
