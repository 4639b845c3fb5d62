// Serves the page of this tree at `/` in front of a server whose binary does not have it yet.
// Everything else is passed on as it comes.

import { readFileSync } from 'node:fs';
import { createServer, request } from 'node:http';

const policy = "default-src 'self'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; form-action 'none'";

/** Resolves to the address of the proxy. */
export function startProxy(address, file) {
  const proxy = createServer((incoming, outgoing) => {
    if (incoming.url === '/') {
      outgoing.writeHead(200, { 'content-type': 'text/html; charset=utf-8', 'content-security-policy': policy });
      return outgoing.end(readFileSync(file));
    }
    const { method, headers } = incoming;
    const onward = request(address + incoming.url, { method, headers }, answer => {
      outgoing.writeHead(answer.statusCode, answer.headers);
      answer.pipe(outgoing);
    });
    onward.on('error', () => outgoing.destroy());
    outgoing.on('close', () => onward.destroy());
    incoming.pipe(onward);
  });
  return new Promise(listening => {
    proxy.listen(0, '127.0.0.1', () => listening(`http://127.0.0.1:${proxy.address().port}`));
  });
}
