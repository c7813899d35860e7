// A small HTTP server, for node: `node web.js PORT`.
const http = require("node:http");

const server = http.createServer((request, response) => response.end("ok\n"));
server.listen(Number(process.argv[2]), "127.0.0.1");
process.on("SIGTERM", () => process.exit(0));
