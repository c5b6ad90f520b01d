"""The Google SDK through the gateway: what the client saw is what the ledger has."""

import asyncio
import inspect
import json
import urllib.request

import pytest
from google import genai
from google.genai import errors, types

from bench import demand

MODEL = "gemini-2.5-flash"
PROMPT = "Say hello to the gateway."
WEATHER = types.Tool(
    function_declarations=[
        types.FunctionDeclaration(
            name="weather",
            parameters=types.Schema(type="OBJECT", properties={"city": types.Schema(type="STRING")}),
        )
    ]
)


@pytest.fixture(params=["v1", "v1beta"])
def version(request):
    return request.param


def client_of(gateway, tenant, version="v1beta"):
    options = types.HttpOptions(base_url=gateway.url, api_version=version, timeout=30_000)
    return genai.Client(api_key=tenant, http_options=options)


def ask(gateway, mode, tenant, call, version="v1beta"):
    """What `call` gives with the models of a client of this kind: streams as lists."""
    client = client_of(gateway, tenant, version)
    if mode == "sync":
        result = call(client.models)
        return list(result) if inspect.isgenerator(result) else result

    async def run():
        result = await call(client.aio.models)
        return [item async for item in result] if hasattr(result, "__aiter__") and not hasattr(result, "page") else result

    return asyncio.run(run())


def generate(model=MODEL, contents=PROMPT, config=None):
    return lambda models: models.generate_content(model=model, contents=contents, config=config)


def stream(model=MODEL, contents=PROMPT, config=None):
    return lambda models: models.generate_content_stream(model=model, contents=contents, config=config)


def output(reported):
    return (reported.candidates_token_count or 0) + (reported.thoughts_token_count or 0)


def test_a_generation(gateway, mode, version):
    tenant = gateway.tenant()
    answer = ask(gateway, mode, tenant, generate(), version)
    assert answer.text.startswith("Hello")
    reported = answer.usage_metadata
    usage = gateway.booked(tenant, 1)
    demand(usage, reported.prompt_token_count, output(reported), model=MODEL)
    assert reported.total_token_count == usage["total_tokens"] > 0
    assert (usage["chats"], gateway.chats_used(tenant)) == (1, 1)
    assert usage["providers"]["gemini"]["requests"] == 1


@pytest.mark.parametrize("model", [MODEL, "gzip"])
def test_a_stream(gateway, mode, version, model):
    tenant = gateway.tenant()
    chunks = ask(gateway, mode, tenant, stream(model), version)
    assert len(chunks) == 12 and "".join(chunk.text for chunk in chunks).startswith("Hello")
    reported = chunks[-1].usage_metadata
    demand(gateway.booked(tenant, 1), reported.prompt_token_count, output(reported))


def test_a_stream_as_one_array(gateway):
    # The form without alt=sse, which no SDK asks for.
    tenant = gateway.tenant()
    body = json.dumps({"contents": [{"parts": [{"text": PROMPT}]}]}).encode()
    url = f"{gateway.url}/v1beta/models/{MODEL}:streamGenerateContent?key={tenant}"
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        elements = json.loads(answer.read())
    reported = elements[-1]["usageMetadata"]
    demand(gateway.booked(tenant, 1), reported["promptTokenCount"], reported["candidatesTokenCount"], model=MODEL)


def test_a_conversation(gateway, version):
    tenant = gateway.tenant()
    client = client_of(gateway, tenant, version)
    chat = client.chats.create(model=MODEL)
    first, second = chat.send_message("Hello."), chat.send_message("And again.")
    prompt = first.usage_metadata.prompt_token_count + second.usage_metadata.prompt_token_count
    assert second.usage_metadata.prompt_token_count > first.usage_metadata.prompt_token_count
    demand(gateway.booked(tenant, 2), prompt, output(first.usage_metadata) + output(second.usage_metadata))


def test_tools(gateway, mode):
    tenant = gateway.tenant()
    config = types.GenerateContentConfig(tools=[WEATHER])
    answer = ask(gateway, mode, tenant, generate(config=config))
    assert answer.function_calls[0].name == "weather"
    reported = answer.usage_metadata
    demand(gateway.booked(tenant, 1), reported.prompt_token_count, output(reported))
    chunks = ask(gateway, mode, tenant, stream(config=config))
    more = chunks[-1].usage_metadata
    prompt = reported.prompt_token_count + more.prompt_token_count
    demand(gateway.booked(tenant, 2), prompt, output(reported) + output(more))


def test_a_tool_that_the_sdk_calls_by_itself_is_two_calls(gateway, mode):
    tenant = gateway.tenant()
    called = []

    def greeting() -> str:
        """How one greets here."""
        called.append("greeting")
        return "Hello"

    answer = ask(gateway, mode, tenant, generate(config=types.GenerateContentConfig(tools=[greeting])))
    assert called == ["greeting"] and answer.text
    usage = gateway.booked(tenant, 2)
    assert usage["chats"] == 2 and usage["estimated"]["requests"] == 0
    reported = answer.usage_metadata
    # In the simulated provider the call of a function without arguments counts one token.
    assert usage["completion_tokens"] == output(reported) + 1
    assert usage["prompt_tokens"] > reported.prompt_token_count


def test_a_count_of_tokens_is_free(gateway, mode):
    tenant = gateway.tenant()
    count = ask(gateway, mode, tenant, lambda models: models.count_tokens(model=MODEL, contents=PROMPT))
    answer = ask(gateway, mode, tenant, generate())
    assert count.total_tokens == answer.usage_metadata.prompt_token_count
    usage = gateway.booked(tenant, 1)
    demand(usage, answer.usage_metadata.prompt_token_count, output(answer.usage_metadata))


def embed(model, contents):
    return lambda models: models.embed_content(model=model, contents=contents)


def test_embeddings_whose_model_says_what_it_charges(gateway, mode):
    tenant = gateway.tenant()
    answer = ask(gateway, mode, tenant, embed("gemini-embedding-2", ["one two three", "four"]))
    assert answer.embeddings[0].values[:2] == [0.5, -0.25]
    usage = gateway.booked(tenant, 1)
    demand(usage, 4, 0)
    assert (usage["chats"], gateway.chats_used(tenant)) == (0, 0)


def test_embeddings_whose_model_says_nothing_are_estimated(gateway, mode):
    tenant = gateway.tenant()
    ask(gateway, mode, tenant, embed("gemini-embedding-001", "one two three four five"))
    usage = gateway.booked(tenant, 1)
    assert usage["estimated"]["requests"] == 1
    assert 3 <= usage["prompt_tokens"] <= 12 and usage["completion_tokens"] == 0


def test_one_embedding_by_its_own_route(gateway):
    tenant = gateway.tenant()
    body = json.dumps({"content": {"parts": [{"text": "one two three"}]}}).encode()
    headers = {"Content-Type": "application/json", "x-goog-api-key": tenant}
    url = f"{gateway.url}/v1beta/models/gemini-embedding-2:embedContent"
    with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=20) as answer:
        reported = json.loads(answer.read())["usageMetadata"]
    demand(gateway.booked(tenant, 1), reported["promptTokenCount"], 0)


def test_lists_of_models_are_free(gateway, version):
    tenant = gateway.tenant()
    client = client_of(gateway, tenant, version)
    models = client.models
    assert models.get(model=MODEL).name == f"models/{MODEL}"
    assert [model.name for model in models.list()]
    models.generate_content(model=MODEL, contents=PROMPT)
    assert gateway.booked(tenant, 1)["requests"] == 1


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, errors.ClientError), (404, errors.ClientError), (429, errors.ClientError), (500, errors.ServerError)],
)
@pytest.mark.parametrize("call", [generate, stream])
def test_errors_pass_and_cost_nothing(gateway, mode, status, kind, call):
    tenant = gateway.tenant()
    with pytest.raises(kind) as caught:
        ask(gateway, mode, tenant, call(f"error-{status}"))
    assert caught.value.code == status and "asked for this error" in caught.value.message
    usage = gateway.booked(tenant, 0, failed=1)
    demand(usage, 0, 0)
    assert gateway.chats_used(tenant) == 0


def test_a_wrong_key(gateway, mode, version):
    for call in [generate(), stream()]:
        with pytest.raises(errors.ClientError) as caught:
            ask(gateway, mode, "AIza-nonsense", call, version)
        assert (caught.value.code, caught.value.status) == (401, "UNAUTHENTICATED")


def test_a_402(gateway):
    tenant = gateway.tenant()
    gateway.use_up(tenant)
    for mode in ["sync", "async"]:
        for call in [generate(), stream()]:
            with pytest.raises(errors.ClientError) as caught:
                ask(gateway, mode, tenant, call)
            assert (caught.value.code, caught.value.status) == (402, "RESOURCE_EXHAUSTED")
            assert "500 of 500 chats" in caught.value.message
    assert gateway.booked(tenant, 500)["chats"] == 500


def test_a_stream_that_is_left_is_booked_to_its_end(gateway):
    tenant = gateway.tenant()
    client = client_of(gateway, tenant)
    chunks = stream("words-100")(client.models)
    next(chunks)
    chunks.close()
    usage = gateway.booked(tenant, 1)
    assert (usage["completion_tokens"], usage["estimated"]["requests"]) == (100, 0)


def test_a_stream_that_breaks_off_is_booked_as_far_as_it_said(gateway, mode):
    tenant = gateway.tenant()
    with pytest.raises(Exception) as caught:
        ask(gateway, mode, tenant, stream("cut-5"))
    assert not isinstance(caught.value, AssertionError)
    usage = gateway.booked(tenant, 1)
    assert (usage["completion_tokens"], usage["estimated"]["requests"]) == (5, 0)
