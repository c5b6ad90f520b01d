"""Pydantic AI: its agents ask twice where a tool is called, and check what they got."""

import asyncio

from openai import AsyncOpenAI
from pydantic import BaseModel
from pydantic_ai import Agent
from pydantic_ai.models.google import GoogleModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.google import GoogleProvider
from pydantic_ai.providers.openai import OpenAIProvider

from suite import Suite

ASK = "What is the toll, please? ü€"
# It keeps its connections between clients, and they keep their loop.
RUNNER = asyncio.Runner()


class City(BaseModel):
    city: str


def weather(city: str) -> str:
    """How the weather is."""
    return f"sunny in {city}"


def told(result):
    return [result.output, result.usage() if callable(result.usage) else result.usage]


async def streamed(agent):
    async with agent.run_stream(ASK) as result:
        return [[text async for text in result.stream_text(delta=True)], await result.get_output()]


def calls(model):
    """What can be asked of any model."""
    yield "", lambda a: told(Agent(model(a), instructions="Be brief.").run_sync(ASK))
    yield ", stream", lambda a: RUNNER.run(streamed(Agent(model(a))))
    yield ", tools by itself", lambda a: told(Agent(model(a), tools=[weather]).run_sync(ASK))
    yield ", structured", lambda a: told(Agent(model(a), output_type=City).run_sync(ASK))


def provider(access):
    # Its own retries are off: each case counts the provider's calls.
    return OpenAIProvider(openai_client=AsyncOpenAI(base_url=access.openai, api_key=access.key, max_retries=0))


def google(access):
    return GoogleModel("gemini-2.5-flash", provider=GoogleProvider(api_key=access.key, base_url=access.root))


suite = Suite("pydantic-ai")
for suffix, call in calls(lambda access: OpenAIChatModel("gpt-4o-mini", provider=provider(access))):
    suite.case("chat" + suffix, call)
for suffix, call in calls(lambda access: OpenAIResponsesModel("gpt-4o-mini", provider=provider(access))):
    suite.case("responses" + suffix, call)
for suffix, call in calls(google):
    suite.case(
        ("streamGenerateContent" + suffix.replace(", stream", ""))
        if "stream" in suffix
        else "generateContent" + suffix,
        call,
    )
suite.refused("a 402", lambda a: Agent(OpenAIChatModel("gpt-4o-mini", provider=provider(a))).run_sync(ASK))
suite.refused("a 402", lambda a: Agent(google(a)).run_sync(ASK))
