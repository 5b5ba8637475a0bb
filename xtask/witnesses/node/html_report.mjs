// The HTML reports of a run, of the doctor and of a comparison in a real browser: Chromium, driven by playwright-core, on files.

import assert from 'node:assert/strict';
import { spawn, execFile } from 'node:child_process';
import { mkdir, mkdtemp, readFile, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { chromium } from 'playwright-core';
import { check, run } from './report.mjs';

const HOSTILE = '<img src=x onerror="window.hacked=true"><script>window.hacked=true</script>';
const { WITNESS_BINARIES: binaries, WITNESS_CHROMIUM: browserPath, WITNESS_SCREENSHOTS: screenshots } = process.env;
const folder = await mkdtemp(join(tmpdir(), 'reports-'));
const checker = join(binaries, 'farllama-check');

/** Runs farllama-check in the folder; its exit code. */
const command = (...args) => new Promise((done) => {
  execFile(checker, args, { cwd: folder, timeout: 60_000 }, (error) => done(error ? error.code : 0));
});

// A model that writes markup, a check that fails on it, and a stream.
await writeFile(join(folder, 'hostile.yaml'), JSON.stringify({
  title: `a model writes ${HOSTILE}`,
  upstream: [{ when: { path: '/api/chat' }, reply: { says: HOSTILE, pause: '15ms' } }],
  steps: [{ call: { chat: { model: '${model}', stream: true, messages: [{ role: 'user', content: HOSTILE }] } }, expect: { '$.choices[0].message.content': 'plain words' } }],
}));
await writeFile(join(folder, 'good.yaml'), JSON.stringify({
  title: 'a plain answer comes', steps: [{ call: 'models', expect: { '$.object': 'list' } }],
}));
const codes = [
  await command('run', 'hostile.yaml', 'good.yaml', '--html', 'run.html', '--json', 'run.json'),
  await command('compare', 'mock', 'run.json', '--scenarios', 'good.yaml', '--html', 'compare.html'),
];
const mock = spawn(join(binaries, 'mock-ollama'), ['--port', '0', '-q', '--context-length', '2048'], { stdio: ['ignore', 'pipe', 'inherit'] });
process.on('exit', () => mock.kill('SIGKILL'));
const url = await new Promise((done) => mock.stdout.on('data', (data) => { const found = `${data}`.match(/http:\S+/); if (found) done(found[0]); }));
codes.push(await command('doctor', '--remote-host', url, '--tries', '2', '--html', 'doctor.html'));

const browser = await chromium.launch({ executablePath: browserPath, args: ['--no-sandbox', '--disable-gpu'] });
const complaints = [];
const asked = [];

async function open(name, colorScheme = 'light', width = 1100) {
  const page = await browser.newPage({ colorScheme, viewport: { width, height: 900 } });
  page.setDefaultTimeout(10_000);
  page.on('pageerror', (error) => complaints.push(`${name}: ${error}`));
  page.on('console', (message) => { if (message.type() === 'error') complaints.push(`${name}: ${message.text()}`); });
  page.on('request', (request) => { if (!request.url().startsWith('file:')) asked.push(request.url()); });
  await page.goto(pathToFileURL(join(folder, name)).href);
  return page;
}

async function shoot(page, name) {
  if (!screenshots) return;
  await mkdir(screenshots, { recursive: true });
  await page.screenshot({ path: join(screenshots, `${name}.png`), fullPage: true });
}

check('the reports are written, and the exit codes are those of the command', async () => {
  assert.deepEqual(codes, [1, 0, 1]);
});

check('markup of a model is shown as text, and does nothing', async () => {
  const page = await open('run.html');
  const failed = page.locator('[data-state="failed"]');
  await failed.locator('summary').click();
  assert.match(await failed.innerText(), /<img src=x onerror=/);
  assert.equal(await page.evaluate(() => window.hacked), undefined);
  assert.equal(await page.locator('img').count(), 0);
  assert.equal(await page.locator('script').count(), 1);
  await shoot(page, 'report-run');
  await page.close();
});

check('a finding has its place, a marked difference, the exchange and the times of the stream', async () => {
  const page = await open('run.html');
  const item = page.locator('[data-state="failed"]');
  await item.locator('summary').click();
  assert.match(await item.innerText(), /hostile\.yaml:\d+:\d+/);
  assert.ok((await item.locator('del').count()) > 0 && (await item.locator('ins').count()) > 0);
  assert.match(await item.innerText(), /POST http:\/\/127\.0\.0\.1:\d+\/v1\/chat\/completions/);
  assert.ok((await item.locator('svg rect').count()) > 2);
  await page.close();
});

check('filters by state, area and text leave what fits', async () => {
  const page = await open('run.html');
  const visible = () => page.locator('[data-state]:visible').count();
  assert.equal(await visible(), 2);
  await page.selectOption('[name=state]', 'failed');
  assert.equal(await visible(), 1);
  await page.selectOption('[name=state]', '');
  await page.fill('[name=text]', 'plain answer comes');
  assert.equal(await visible(), 1);
  assert.match(await page.locator('#shown').innerText(), /1 of 2/);
  await page.close();
});

check('the doctor\'s page has a verdict for each tool, with what to change', async () => {
  const page = await open('doctor.html');
  const codex = page.locator('[data-state="NOT READY"]', { hasText: 'Codex' });
  await codex.locator('summary').click();
  assert.match(await codex.innerText(), /context\.max = 65536/);
  await page.selectOption('[name=area]', 'tools');
  assert.equal(await page.locator('[data-state]:visible').count(), 13);
  await shoot(page, 'report-doctor');
  await page.close();
});

check('a comparison says what differs', async () => {
  const page = await open('compare.html');
  assert.match(await page.locator('body').innerText(), /run\.json/);
  await shoot(page, 'report-compare');
  await page.close();
});

check('light and dark differ, and a narrow screen needs no scrolling aside', async () => {
  for (const name of ['run.html', 'doctor.html', 'compare.html']) {
    const [light, dark] = [await open(name), await open(name, 'dark', 360)];
    const back = (page) => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    assert.notEqual(await back(light), await back(dark), name);
    const [inner, width] = await dark.evaluate(() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]);
    assert.ok(inner <= width, `${name} is ${inner} wide on a screen of ${width}`);
    await shoot(dark, `${name.replace('.html', '')}-dark-narrow`);
    await light.close();
    await dark.close();
  }
});

check('the pages ask nothing of anyone, and report no errors', async () => {
  assert.deepEqual(asked, []);
  assert.deepEqual(complaints, []);
  assert.doesNotMatch(await readFile(join(folder, 'run.html'), 'utf8'), /https?:\/\/(?!127\.0\.0\.1)/);
});

await run();
