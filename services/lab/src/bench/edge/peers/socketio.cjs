// Socket.IO with a room for each job. Each process receives the events of all jobs from Redis, as with Socket.IO's own
// Redis adapter, and forwards those whose job has a room here.

const { createServer } = require("node:http");
const { createClient } = require("@redis/client");
const { Server } = require("socket.io");

async function main() {
  const store = createClient({ url: process.env.REDIS_URL });
  const subscriber = store.duplicate();
  await Promise.all([store.connect(), subscriber.connect()]);

  const http = createServer();
  const io = new Server(http, { transports: ["websocket"] });

  io.on("connection", (socket) => {
    socket.on("watch", async (id) => {
      // Join the room first, so that no event published after the read of the state is missed.
      socket.join(id);
      const state = await store.get(`state:${id}`);
      if (state !== null) socket.emit("status", JSON.parse(state).data);
    });
  });

  await subscriber.pSubscribe("job:*", (message, channel) => {
    const id = channel.slice("job:".length);
    if (io.sockets.adapter.rooms.has(id)) io.to(id).emit("status", JSON.parse(message).data);
  });

  http.listen(Number(process.env.PORT), "127.0.0.1");
}

main();
