"""FastAPI on Redis pub/sub: one connection to Redis a process, one subscription a job, a queue for each socket.

A connection to Redis for each socket, as many tutorials have it, would need two files a client: 10,000 would not fit.
"""

import asyncio
import os
from collections import defaultdict
from contextlib import asynccontextmanager

import redis.asyncio as redis
from fastapi import FastAPI, WebSocket, WebSocketDisconnect

# Waits for a free connection instead of failing.
pool = redis.BlockingConnectionPool.from_url(
    os.environ["REDIS_URL"], decode_responses=True, max_connections=64, timeout=None
)
store = redis.Redis(connection_pool=pool)
pubsub = store.pubsub()


class Job:
    def __init__(self):
        self.queues = set()
        self.subscribed = asyncio.Event()


jobs = defaultdict(Job)


async def read():
    while True:
        message = await pubsub.get_message(timeout=None)
        if message is None or message["channel"] not in jobs:
            continue
        job = jobs[message["channel"]]
        if message["type"] == "subscribe":
            job.subscribed.set()
        elif message["type"] == "message":
            for queue in job.queues:
                queue.put_nowait(message["data"])


@asynccontextmanager
async def lifespan(_):
    # Open the connection now: concurrent first subscriptions would open several, and lose all but one.
    await pubsub.subscribe("ready")
    reader = asyncio.create_task(read())
    yield
    reader.cancel()


app = FastAPI(lifespan=lifespan)


async def watch(channel, queue):
    """Returns after Redis has answered the subscription: no event published from then on is missed."""
    job = jobs[channel]
    job.queues.add(queue)
    if len(job.queues) == 1:
        await pubsub.subscribe(channel)
    await job.subscribed.wait()


async def unwatch(channel, queue):
    job = jobs[channel]
    job.queues.discard(queue)
    if not job.queues:
        del jobs[channel]
        await pubsub.unsubscribe(channel)


async def send(socket, job_id, queue):
    state = await store.get(f"state:{job_id}")
    if state is not None:
        await socket.send_text(state)
    while True:
        await socket.send_text(await queue.get())


@app.websocket("/ws/download/{job_id}")
async def watch_job(socket: WebSocket, job_id: str):
    await socket.accept()
    channel, queue = f"job:{job_id}", asyncio.Queue()
    await watch(channel, queue)
    sender = asyncio.create_task(send(socket, job_id, queue))
    try:
        while True:
            if await socket.receive_text() == "ping":
                await socket.send_text('{"type":"pong"}')
    except WebSocketDisconnect:
        pass
    finally:
        sender.cancel()
        await unwatch(channel, queue)
