// What the JavaScript clients' checks share: a server on a free port, the functions on offer, and one way to run and
// count checks. The counterpart of ../support.py; knows no client library and no wire format.

import { strict as assert } from "node:assert";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { parseArgs } from "node:util";
import Ajv from "ajv/dist/2020.js";

export const functions = JSON.parse(readFileSync(new URL("../tools.json", import.meta.url)));
// Requests that the built-in model is known to serve, with the calls it makes at temperature 0.
export const weather = { text: "What is the weather in Paris?", call: ["get_weather", { city: "Paris" }] };
export const timer = { text: "Set a timer for 12 minutes, please.", call: ["set_timer", { minutes: 12 }] };
export const twoCities = "What is the weather in Paris and in London?";
// What `get_weather` returns, and a word of it that the answer then must hold.
export const sunny = { weather: "sunny" };

const validators = Object.fromEntries(
  Object.entries(functions).map(([name, each]) => [name, new Ajv().compile(each.parameters)]),
);

/** Asserts that the call names a function on offer and fits its schema; returns both, for comparing. */
export function validCall(name, input) {
  const value = typeof input === "string" ? JSON.parse(input) : input;
  assert(validators[name], `called ${name}`);
  assert(validators[name](value), JSON.stringify({ name, value, errors: validators[name].errors }));
  return [name, value];
}

/** Asserts that the promise is refused with an error of this class and these properties. */
export async function refuses(promise, kind, properties = {}) {
  const error = await promise.then(() => assert.fail(`no ${kind.name}`), (caught) => caught);
  assert(error instanceof kind, error);
  for (const [name, value] of Object.entries(properties)) assert.equal(error[name], value, error);
}

export async function collect(iterable) {
  const items = [];
  for await (const item of iterable) items.push(item);
  return items;
}

async function startServer(binary) {
  const options = { stdio: ["ignore", "pipe", "inherit"], env: { CALLSMITH_LOG: "warn", ...process.env } };
  const child = spawn(binary, ["serve", "--port", "0"], options);
  const ended = once(child, "exit");
  for await (const line of createInterface({ input: child.stdout })) {
    if (line.startsWith("listening on ")) return { address: line.split(" ").at(-1), child, ended };
  }
  throw new Error(`${binary} did not start`);
}

/** Ends the server with SIGTERM, as its supervisor would, and expects it to end well. */
async function stopServer({ child, ended }) {
  child.kill("SIGTERM");
  const [code] = await ended;
  assert.equal(code, 0, `exit code ${code} after SIGTERM`);
}

/** Runs every check, whatever the ones before it did; prints each outcome and the count; returns how many failed. */
async function runChecks(checks, ...context) {
  let failed = 0;
  for (const check of checks) {
    const began = performance.now();
    const error = await Promise.resolve(check(...context)).then(() => null, (caught) => caught);
    if (error) {
      console.log(error);
      failed += 1;
    }
    const seconds = ((performance.now() - began) / 1000).toFixed(2);
    console.log(`${error ? "FAILED" : "ok    "} ${check.name} (${seconds} s)`);
  }
  const outcome = failed ? "FAILED" : "ok";
  console.log(`test result: ${outcome}. ${checks.length - failed} passed; ${failed} failed; 0 ignored`);
  return failed;
}

/** Command line of a client's file: `connect(address, model)` makes what is handed to every check. */
export async function main(checks, connect) {
  const { values } = parseArgs({ options: { binary: { type: "string" }, url: { type: "string" } } });
  assert(Boolean(values.binary) !== Boolean(values.url), "give --binary PATH or --url ADDRESS");
  const server = values.binary ? await startServer(values.binary) : { address: values.url };
  const { address } = server;
  try {
    const models = await (await fetch(`${address}/v1/models`)).json();
    const model = models.data[0].id;
    process.exitCode = (await runChecks(checks, connect(address, model), model)) ? 1 : 0;
  } finally {
    if (server.child) await stopServer(server);
  }
}
