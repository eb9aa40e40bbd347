// What a Node before version 22 lacks, from Debian's package node-ws.
globalThis.WebSocket ??= require("ws");
globalThis.crypto ??= require("node:crypto").webcrypto;
