"""LangChain, with the packages for both providers."""

import asyncio

from langchain_core.messages import convert_to_messages
from langchain_core.tools import tool
from langchain_google_genai import ChatGoogleGenerativeAI, GoogleGenerativeAIEmbeddings
from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings
from pydantic import BaseModel

from suite import Suite

ASK = [("system", "Be brief."), ("human", "What is the toll, please? ü€")]

# It keeps its connections between clients, and they keep their loop.
RUNNER = asyncio.Runner()


class City(BaseModel):
    """A place with a gate."""

    city: str


@tool
def weather(city: str) -> str:
    """How the weather is."""
    return "sunny"


def told(message):
    """What of a message is the provider's: ids of runs are drawn by lot."""
    return {
        "content": message.content,
        "tool_calls": message.tool_calls,
        "usage": message.usage_metadata,
        "metadata": {name: value for name, value in message.response_metadata.items() if name != "headers"},
    }


def joined(chunks):
    chunks = list(chunks)
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    return [len(chunks), told(whole)]


async def gathered(chunks):
    return joined([chunk async for chunk in chunks])


def calls(model):
    """What can be asked of any chat model."""
    yield "", lambda a: told(model(a).invoke(ASK))
    yield ", async", lambda a: told(RUNNER.run(model(a).ainvoke(ASK)))
    yield ", stream", lambda a: joined(model(a).stream(ASK))
    yield ", stream, async", lambda a: RUNNER.run(gathered(model(a).astream(ASK)))
    yield ", tools", lambda a: told(model(a).bind_tools([weather]).invoke(ASK))
    yield ", tools, stream", lambda a: joined(model(a).bind_tools([weather]).stream(ASK))
    yield ", structured", lambda a: model(a).with_structured_output(City).invoke(ASK).city


def openai_model(**options):
    options = {"model": "gpt-4o-mini", "max_retries": 0} | options
    return lambda access: ChatOpenAI(base_url=access.openai, api_key=access.key, **options)


def google_model(access):
    return ChatGoogleGenerativeAI(
        model="gemini-2.5-flash", google_api_key=access.key, base_url=access.root, max_retries=1, transport="rest"
    )


def openai_embeddings(access):
    # What would fetch a vocabulary from elsewhere is off.
    return OpenAIEmbeddings(
        model="text-embedding-3-small", base_url=access.openai, api_key=access.key, check_embedding_ctx_length=False
    )


def google_embeddings(access):
    return GoogleGenerativeAIEmbeddings(model="gemini-embedding-2", google_api_key=access.key, base_url=access.root)


suite = Suite("langchain-openai")
for suffix, call in calls(openai_model()):
    suite.case("chat" + suffix, call)
suite.case("chat, stream with usage", lambda a: joined(openai_model(stream_usage=True)(a).stream(ASK)))
suite.case(
    "chat, n = 3",
    lambda a: [told(g.message) for g in openai_model(n=3)(a).generate([convert_to_messages(ASK)]).generations[0]],
)
for suffix, call in calls(openai_model(use_responses_api=True)):
    suite.case("responses" + suffix, call)
suite.case(
    "completions", lambda a: OpenAI(model="gpt-3.5-turbo-instruct", base_url=a.openai, api_key=a.key).invoke("The toll")
)
suite.case("embeddings", lambda a: openai_embeddings(a).embed_documents(["one two", "three"]))
suite.refused("a 402", lambda a: openai_model()(a).invoke(ASK))

suite = Suite("langchain-google-genai")
for suffix, call in calls(google_model):
    name = "streamGenerateContent" if "stream" in suffix else "generateContent"
    suite.case(name + suffix.replace(", stream", ""), call)
suite.case("embed, with usage", lambda a: google_embeddings(a).embed_documents(["one two", "three"]))
suite.refused("a 402", lambda a: google_model(a).invoke(ASK))
