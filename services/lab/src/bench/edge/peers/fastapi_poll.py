"""FastAPI that polls Redis every second for each socket: the design that a live feed replaces."""

import asyncio
import os

import redis.asyncio as redis
from fastapi import FastAPI, WebSocket, WebSocketDisconnect

INTERVAL_S = 1.0

app = FastAPI()
# Waits for a free connection instead of failing.
pool = redis.BlockingConnectionPool.from_url(
    os.environ["REDIS_URL"], decode_responses=True, max_connections=64, timeout=None
)
store = redis.Redis(connection_pool=pool)


async def poll(socket, job_id):
    sent = None
    while True:
        state = await store.get(f"state:{job_id}")
        if state is not None and state != sent:
            await socket.send_text(state)
            sent = state
        await asyncio.sleep(INTERVAL_S)


@app.websocket("/ws/download/{job_id}")
async def watch_job(socket: WebSocket, job_id: str):
    await socket.accept()
    poller = asyncio.create_task(poll(socket, job_id))
    try:
        while True:
            if await socket.receive_text() == "ping":
                await socket.send_text('{"type":"pong"}')
    except WebSocketDisconnect:
        pass
    finally:
        poller.cancel()
