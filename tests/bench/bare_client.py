"""The bare thing beside cloud_link: a Socket.IO client on the same kind of TLS link that acknowledges at once."""

import asyncio
import ssl
import sys
from typing import Any

import aiohttp
import socketio


async def main(url: str, ca: str, certificate: str, key: str) -> None:
    """Stay connected and answer every event with a constant."""
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=ca)
    context.load_cert_chain(certificate, key)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session:
        client = socketio.AsyncClient(http_session=session, handle_sigint=False)

        async def answer(event: str, *_arguments: Any) -> dict[str, Any]:
            return {"action": event, "correlation_id": None, "status": "success", "interfaces": []}

        client.on("*", answer)
        await client.connect(url, transports=["websocket"])
        print("connected", flush=True)
        await client.wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:5]))
