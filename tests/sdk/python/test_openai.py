"""The OpenAI SDK through the gateway: what the client saw is what the ledger has."""

import asyncio

import openai
import pytest
from openai import AsyncOpenAI, AsyncStream, OpenAI, Stream

from bench import demand

PROMPT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Say hello to the gateway."}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def ask(gateway, mode, tenant, call, **options):
    """What `call` gives with a client of this kind: streams as lists."""
    options = {"base_url": gateway.url + "/v1", "api_key": tenant, "max_retries": 0, "timeout": 30} | options
    if mode == "sync":
        with OpenAI(**options) as client:
            result = call(client)
            return list(result) if isinstance(result, Stream) else result

    async def run():
        async with AsyncOpenAI(**options) as client:
            result = await call(client)
            return [item async for item in result] if isinstance(result, AsyncStream) else result

    return asyncio.run(run())


def chat(**options):
    options = {"model": "gpt-4o-mini", "messages": PROMPT} | options
    return lambda client: client.chat.completions.create(**options)


def test_a_chat(gateway, mode):
    tenant = gateway.tenant()
    answer = ask(gateway, mode, tenant, chat())
    assert answer.choices[0].message.content.startswith("Hello")
    assert answer.usage.prompt_tokens > 0 and answer.usage.completion_tokens > 0
    usage = gateway.booked(tenant, 1)
    demand(usage, answer.usage.prompt_tokens, answer.usage.completion_tokens, model="gpt-4o-mini")
    assert (usage["chats"], gateway.chats_used(tenant)) == (1, 1)


def test_a_chat_with_several_answers(gateway, mode):
    tenant = gateway.tenant()
    answer = ask(gateway, mode, tenant, chat(n=3, max_completion_tokens=5))
    assert len(answer.choices) == 3 and answer.choices[0].finish_reason == "length"
    demand(gateway.booked(tenant, 1), answer.usage.prompt_tokens, answer.usage.completion_tokens)


@pytest.mark.parametrize("model", ["gpt-4o-mini", "gzip"])
def test_a_stream_with_usage(gateway, mode, model):
    tenant = gateway.tenant()
    chunks = ask(gateway, mode, tenant, chat(model=model, stream=True, stream_options={"include_usage": True}))
    reported = [chunk.usage for chunk in chunks if chunk.usage]
    assert len(reported) == 1 and not chunks[-1].choices
    demand(gateway.booked(tenant, 1), reported[0].prompt_tokens, reported[0].completion_tokens)


@pytest.mark.parametrize("model", ["gpt-4o-mini", "gzip"])
def test_a_stream_without_usage_is_booked_all_the_same(gateway, mode, model):
    tenant, twin = gateway.tenant(), gateway.tenant()
    chunks = ask(gateway, mode, tenant, chat(model=model, stream=True))
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason == "stop"
    reported = ask(gateway, mode, twin, chat(model=model)).usage
    demand(gateway.booked(tenant, 1), reported.prompt_tokens, reported.completion_tokens)


def test_tools_in_two_turns(gateway, mode):
    tenant = gateway.tenant()
    first = ask(gateway, mode, tenant, chat(tools=[WEATHER]))
    call = first.choices[0].message.tool_calls[0]
    assert call.function.name == "weather" and "city" in call.function.arguments
    turn = [*PROMPT, first.choices[0].message.model_dump(), {"role": "tool", "tool_call_id": call.id, "content": "Sunny"}]
    second = ask(gateway, mode, tenant, chat(messages=turn, tools=[WEATHER]))
    assert second.choices[0].message.content
    prompt = first.usage.prompt_tokens + second.usage.prompt_tokens
    demand(gateway.booked(tenant, 2), prompt, first.usage.completion_tokens + second.usage.completion_tokens)


def test_tools_in_a_stream(gateway, mode):
    tenant = gateway.tenant()
    chunks = ask(gateway, mode, tenant, chat(tools=[WEATHER], stream=True, stream_options={"include_usage": True}))
    arguments = "".join(
        call.function.arguments or ""
        for chunk in chunks
        for choice in chunk.choices
        for call in choice.delta.tool_calls or []
    )
    assert arguments.startswith("{") and arguments.endswith("}")
    demand(gateway.booked(tenant, 1), chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens)


def test_responses(gateway, mode):
    tenant = gateway.tenant()
    answer = ask(gateway, mode, tenant, lambda client: client.responses.create(model="gpt-4o-mini", input="Say hello."))
    assert answer.output_text
    usage = gateway.booked(tenant, 1)
    demand(usage, answer.usage.input_tokens, answer.usage.output_tokens, model="gpt-4o-mini")
    assert usage["chats"] == 1


@pytest.mark.parametrize("limit", [None, 3])
def test_responses_as_a_stream(gateway, mode, limit):
    tenant = gateway.tenant()
    options = {"model": "gpt-4o-mini", "input": "Say hello.", "stream": True}
    if limit:
        options["max_output_tokens"] = limit
    events = ask(gateway, mode, tenant, lambda client: client.responses.create(**options))
    assert events[-1].type == ("response.incomplete" if limit else "response.completed")
    reported = events[-1].response.usage
    demand(gateway.booked(tenant, 1), reported.input_tokens, reported.output_tokens)


def test_responses_with_tools(gateway, mode):
    tenant = gateway.tenant()
    tool = {"type": "function", "strict": False, **WEATHER["function"]}
    options = {"model": "gpt-4o-mini", "input": "Weather in Paris?", "tools": [tool]}
    answer = ask(gateway, mode, tenant, lambda client: client.responses.create(**options))
    call = answer.output[0]
    assert (call.type, call.name) == ("function_call", "weather")
    turn = [
        {"role": "user", "content": "Weather in Paris?"},
        call.model_dump(exclude_none=True),
        {"type": "function_call_output", "call_id": call.call_id, "output": "Sunny"},
    ]
    second = ask(gateway, mode, tenant, lambda client: client.responses.create(**(options | {"input": turn})))
    assert second.output_text
    prompt = answer.usage.input_tokens + second.usage.input_tokens
    demand(gateway.booked(tenant, 2), prompt, answer.usage.output_tokens + second.usage.output_tokens)


def test_completions(gateway, mode):
    tenant = gateway.tenant()
    options = {"model": "gpt-3.5-turbo-instruct", "prompt": ["Say hello.", "And again."]}
    answer = ask(gateway, mode, tenant, lambda client: client.completions.create(**options))
    assert len(answer.choices) == 2
    usage = gateway.booked(tenant, 1)
    demand(usage, answer.usage.prompt_tokens, answer.usage.completion_tokens, model="gpt-3.5-turbo-instruct")
    assert usage["chats"] == 1


def test_completions_as_a_stream(gateway, mode):
    tenant = gateway.tenant()
    options = {"model": "gpt-3.5-turbo-instruct", "prompt": "Say hello.", "stream": True}
    asked = {"stream_options": {"include_usage": True}}
    chunks = ask(gateway, mode, tenant, lambda client: client.completions.create(**options, **asked))
    reported = chunks[-1].usage
    demand(gateway.booked(tenant, 1), reported.prompt_tokens, reported.completion_tokens)
    chunks = ask(gateway, mode, tenant, lambda client: client.completions.create(**options))
    assert all(chunk.choices for chunk in chunks)
    demand(gateway.booked(tenant, 2), 2 * reported.prompt_tokens, 2 * reported.completion_tokens)


@pytest.mark.parametrize("source", ["one text", ["two", "short texts"], [1, 2, 3], [[1, 2], [3]]])
@pytest.mark.parametrize("options", [{}, {"encoding_format": "float"}, {"dimensions": 8}])
def test_embeddings(gateway, mode, source, options):
    tenant = gateway.tenant()
    model = "text-embedding-3-small"
    call = lambda client: client.embeddings.create(model=model, input=source, **options)  # noqa: E731
    answer = ask(gateway, mode, tenant, call)
    assert len(answer.data[0].embedding) == options.get("dimensions", 16)
    assert answer.data[0].embedding[:2] == [0.5, -0.25]
    usage = gateway.booked(tenant, 1)
    demand(usage, answer.usage.prompt_tokens, 0, model=model)
    assert (usage["chats"], gateway.chats_used(tenant)) == (0, 0)


def test_lists_of_models_are_free(gateway, mode):
    tenant = gateway.tenant()
    assert ask(gateway, mode, tenant, lambda client: client.models.retrieve("gpt-4o-mini")).id == "gpt-4o-mini"
    with OpenAI(base_url=gateway.url + "/v1", api_key=tenant) as client:
        assert [model.id for model in client.models.list()]
    ask(gateway, mode, tenant, chat())
    assert gateway.booked(tenant, 1)["requests"] == 1


ERRORS = [
    (400, openai.BadRequestError),
    (404, openai.NotFoundError),
    (429, openai.RateLimitError),
    (500, openai.InternalServerError),
]


@pytest.mark.parametrize(("status", "kind"), ERRORS)
@pytest.mark.parametrize("stream", [False, True])
def test_errors_pass_and_cost_nothing(gateway, mode, status, kind, stream):
    tenant = gateway.tenant()
    with pytest.raises(kind) as caught:
        ask(gateway, mode, tenant, chat(model=f"error-{status}", stream=stream))
    assert caught.value.status_code == status and "asked for this error" in caught.value.message
    usage = gateway.booked(tenant, 0, failed=1)
    demand(usage, 0, 0)
    assert gateway.chats_used(tenant) == 0


def test_each_try_of_a_client_that_tries_again_is_one_event(gateway, mode):
    tenant = gateway.tenant()
    with pytest.raises(openai.RateLimitError):
        ask(gateway, mode, tenant, chat(model="error-429"), max_retries=2)
    gateway.booked(tenant, 0, failed=3)


def test_a_wrong_key(gateway, mode):
    for key in ["sk-nonsense", "tg_live_nonsense"]:
        with pytest.raises(openai.AuthenticationError) as caught:
            ask(gateway, mode, key, chat(), max_retries=2)
        assert caught.value.status_code == 401 and key not in str(caught.value)


def test_a_402_is_not_tried_again(gateway):
    tenant = gateway.tenant()
    gateway.use_up(tenant)
    for mode in ["sync", "async"]:
        for stream in [False, True]:
            with pytest.raises(openai.APIStatusError) as caught:
                ask(gateway, mode, tenant, chat(stream=stream), max_retries=2)
            assert (caught.value.status_code, caught.value.code) == (402, "quota_exceeded")
            assert caught.value.body["quota"]["used"] == 500
            assert "500 of 500 chats" in caught.value.message
    assert gateway.booked(tenant, 500)["chats"] == 500
    # What is no chat goes on.
    ask(gateway, "sync", tenant, lambda client: client.embeddings.create(model="text-embedding-3-small", input="x"))
    gateway.booked(tenant, 501)


def test_a_stream_that_is_left_is_booked_to_its_end(gateway):
    tenant = gateway.tenant()
    with OpenAI(base_url=gateway.url + "/v1", api_key=tenant) as client:
        with chat(model="words-100+pace-5ms", stream=True)(client) as stream:
            for at, _ in enumerate(stream):
                if at == 3:
                    break
    usage = gateway.booked(tenant, 1)
    assert (usage["completion_tokens"], usage["estimated"]["requests"]) == (100, 0)


def test_a_stream_that_breaks_off_is_seen_and_estimated(gateway, mode):
    tenant = gateway.tenant()
    with pytest.raises(Exception) as caught:
        ask(gateway, mode, tenant, chat(model="words-50+cut-20+pace-1ms", stream=True))
    assert not isinstance(caught.value, AssertionError)
    usage = gateway.booked(tenant, 1)
    assert usage["estimated"]["requests"] == 1 and usage["completion_tokens"] > 0


def test_an_answer_without_usage_is_estimated(gateway, mode):
    tenant = gateway.tenant()
    assert ask(gateway, mode, tenant, chat(model="no-usage")).usage is None
    usage = gateway.booked(tenant, 1)
    assert usage["estimated"]["requests"] == 1
    assert usage["prompt_tokens"] > 0 and usage["completion_tokens"] > 0


def test_ids_and_limits_are_in_the_headers(gateway):
    tenant = gateway.tenant()
    with OpenAI(base_url=gateway.url + "/v1", api_key=tenant, organization="org", project="project") as client:
        raw = client.chat.completions.with_raw_response.create(model="gpt-4o-mini", messages=PROMPT)
    assert raw.parse()._request_id.startswith("req_demo")
    assert raw.headers["RateLimit"].startswith('"chats";r=499;')
    event = gateway.billing("/billing/events", tenant)["events"]
    assert len(raw.headers["x-tollgate-request-id"]) == 36 and len(event) <= 1
