// What the console's checks stand on: a server with adapters to load, a browser, and the page in it.
// Knows how to start and watch them; what the page should do is said in console.mjs.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const { chromium } = createRequire(join(process.env.CONSOLE_MODULES, 'here'))('playwright-core');
const repository = fileURLToPath(new URL('../../', import.meta.url));

/** A directory that is gone when the process ends. */
export function scratch() {
  const directory = mkdtempSync(join(tmpdir(), 'callsmith-console-'));
  process.on('exit', () => rmSync(directory, { recursive: true, force: true, maxRetries: 3 }));
  return directory;
}

/** A server on a free port; resolves to its address when it listens. */
export async function startServer(binary, ...options) {
  const env = { ...process.env, CALLSMITH_LOG: 'error' };
  const server = spawn(binary, ['serve', '--port', '0', ...options], { env, stdio: ['ignore', 'pipe', 'inherit'] });
  process.on('exit', () => server.kill('SIGKILL'));
  for await (const line of createInterface({ input: server.stdout })) {
    const address = line.match(/^listening on (http:\S+)/)?.[1];
    if (address) return address;
  }
  throw new Error('the server ended before it listened');
}

/** Writes a PEFT adapter of rank 2 on the built-in model's query projections; another `seed`, another adapter. */
export function writeAdapter(directory, seed) {
  const { hidden_size: width, num_hidden_layers: layers } =
    JSON.parse(readFileSync(join(repository, 'models/embedded/config.json')));
  const config = { peft_type: 'LORA', r: 2, lora_alpha: 2, target_modules: ['q_proj'] };
  const header = {};
  const values = [];
  for (let layer = 0; layer < layers; layer++) {
    for (const [part, shape] of [['lora_A', [2, width]], ['lora_B', [width, 2]]]) {
      const begin = 4 * values.length;
      for (let i = 0; i < 2 * width; i++) values.push(1e-3 * Math.sin(seed + values.length));
      const name = `base_model.model.model.layers.${layer}.self_attn.q_proj.${part}.weight`;
      header[name] = { dtype: 'F32', shape, data_offsets: [begin, 4 * values.length] };
    }
  }
  const json = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  mkdirSync(directory);
  writeFileSync(join(directory, 'adapter_config.json'), JSON.stringify(config));
  const weights = Buffer.from(new Float32Array(values).buffer);
  writeFileSync(join(directory, 'adapter_model.safetensors'), Buffer.concat([length, json, weights]));
}

export async function startBrowser() {
  const context = await chromium.launchPersistentContext(scratch(), {
    executablePath: '/usr/bin/chromium',
    args: ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
      '--disable-background-networking', '--disable-component-update', '--disable-sync'],
    viewport: { width: 1440, height: 900 },
  });
  context.setDefaultTimeout(20_000);
  return context;
}

/** The console, opened; notes what it sends and what goes wrong in it. */
export class Stage {
  /** Bodies of the chat requests, and the Authorization headers of all requests, in order. */
  asked = [];
  keys = [];
  troubles = [];

  static async open(browser, address, allowed = []) {
    const stage = new Stage();
    stage.page = await browser.newPage();
    stage.watch(address, allowed);
    await stage.page.goto(`${address}/`);
    return stage;
  }

  /** Everything that a browser calls an error is trouble, but for responses with an `allowed` status. */
  watch(address, allowed) {
    const { page, troubles } = this;
    page.on('pageerror', error => troubles.push(error.message));
    page.on('console', message => {
      const status = Number(message.text().match(/^Failed to load resource: .* status of (\d+)/)?.[1]);
      if (message.type() === 'error' && !allowed.includes(status)) troubles.push(message.text());
    });
    page.on('request', request => {
      const { origin, pathname } = new URL(request.url());
      if (origin !== address) troubles.push(`a request to ${request.url()}`);
      if (pathname !== '/') this.keys.push(request.headers().authorization);
      if (pathname === '/v1/chat/completions') this.asked.push(request.postDataJSON());
    });
  }

  find(selector, options) {
    return this.page.locator(selector, options);
  }

  text(selector) {
    return this.find(selector).last().textContent();
  }

  /** Waits until `count` answers have ended. */
  async answered(count) {
    const ended = count => document.querySelectorAll('.turn[aria-busy="false"]').length === count;
    await this.page.waitForFunction(ended, count);
  }

  /** Sends a message and waits for the end of its answer, the `count`th of the conversation. */
  async ask(message, count = 1) {
    await this.find('#message').fill(message);
    await this.find('#send').click();
    await this.answered(count);
  }

  async setTools(tools) {
    await this.find('#tools').fill(typeof tools === 'string' ? tools : JSON.stringify(tools, null, 2));
  }

  /** The next chat request gets this stream instead of the server's. */
  async pretend(events) {
    const body = events.map(event => `data: ${JSON.stringify(event)}\n\n`).join('');
    const reply = { status: 200, contentType: 'text/event-stream', body };
    await this.page.route('**/v1/chat/completions', route => route.fulfill(reply), { times: 1 });
  }

  async close() {
    await this.page.close();
    if (this.troubles.length) throw new Error(`the browser complains: ${this.troubles.join('; ')}`);
  }
}
