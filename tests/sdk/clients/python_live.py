"""The Google SDK for Python: its live sessions, which it opens over TLS alone where it has a key.

python_live.py NAME
"""

import asyncio
import sys

from google import genai
from google.genai import types

from suite import Suite

MODEL = "gemini-2.5-flash"
QUESTION = types.Content(role="user", parts=[types.Part(text="What is the toll?")])


def live(access):
    async def run():
        client = genai.Client(api_key=access.key, http_options=types.HttpOptions(base_url=access.root)).aio
        messages = []
        async with client.live.connect(model=MODEL, config={"response_modalities": ["TEXT"]}) as session:
            for _ in range(2):
                await session.send_client_content(turns=QUESTION, turn_complete=True)
                messages += [message async for message in session.receive()]
        return messages

    return asyncio.run(run())


suite = Suite(f"{sys.argv[1]}, async")
suite.case("live session (Gemini)", live)
suite.refused("a 402", live)
