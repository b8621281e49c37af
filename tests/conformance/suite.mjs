// Plays an edition of the public HTTP cache test suite against a proxy, and prints what came of each test as JSON.
//
//     node suite.mjs SUITE PREFIX
//
// SUITE is the folder of the edition, as npm or git lays it; PREFIX the path under which the proxy serves it. First the
// suite's own origin starts, on a port that the system chooses: one line of JSON says at which address, and what the
// edition publishes of other caches. Then each line on standard input, `{"base": "http://…", "fields": {…}}`, is played:
// the suite's requests go to that base, with those fields where they have none of the name; the answer is one line of
// JSON. The end of the input ends the process.
//
// Not here: starting the proxy, judging the results (`main.rs`). Nothing of the suite itself is in this repository.

import fs from 'node:fs'
import http from 'node:http'
import path from 'node:path'
import process from 'node:process'
import readline from 'node:readline'
import { createRequire } from 'node:module'
import { pathToFileURL } from 'node:url'

// How many tests run at a time. Each spends its time waiting for something to become stale.
const AT_A_TIME = 100

const [folder, prefix] = process.argv.slice(2)
const suite = path.resolve(folder)
// Later editions keep the engine apart from the tests.
const engine = fs.existsSync(path.join(suite, 'test-engine')) ? 'test-engine/' : ''
const load = (file) => import(pathToFileURL(path.join(suite, file)))

// The suite logs as it goes; standard output is for results.
console.log = console.error = () => {}

const handlers = {}
for (const kind of ['config', 'test', 'state']) {
  handlers[kind] = (await load(`${engine}server/handle-${kind}.mjs`)).default
}

// The suite's own server, except that it lives under a prefix; URLs that it makes of a request's own keep it.
const origin = http.createServer((request, response) => {
  const { pathname } = new URL(request.url, 'http://origin')
  const [kind, ...rest] = pathname.startsWith(`${prefix}/`) ? pathname.slice(prefix.length + 1).split('/') : []
  const handler = handlers[kind]
  if (handler) return handler(rest, request, response)
  response.writeHead(404).end()
})

const player = await load(`${engine}client/test.mjs`)
const config = await load(`${engine}client/config.mjs`)
const groups = (await load('tests/index.mjs')).default
const tests = groups
  .flatMap((group) => group.tests.map((test) => ({ ...test, group: group.id })))
  .filter((test) => !test.browser_only)

// Earlier editions bring their own fetch, and are handed it; later ones use Node's.
const plainFetch = engine
  ? globalThis.fetch
  : (await import(pathToFileURL(createRequire(path.join(suite, 'cli.mjs')).resolve('node-fetch')))).default

async function play ({ base, fields }) {
  const fetch = (url, options = {}) => {
    const present = new Set((options.headers ?? []).map(([name]) => name.toLowerCase()))
    const added = Object.entries(fields).filter(([name]) => !present.has(name.toLowerCase()))
    return plainFetch(url, { ...options, headers: [...(options.headers ?? []), ...added] })
  }
  if (engine) globalThis.fetch = fetch
  else config.setFetch(fetch)
  config.setUseBrowserCache(false)
  config.setBaseUrl(base)
  for (const id of Object.keys(player.testResults)) delete player.testResults[id]
  // Playing changes a test's requests: each play starts from fresh ones.
  const fresh = structuredClone(tests)
  const one = player.makeTest ?? player.makeCacheTest
  for (let at = 0; at < fresh.length; at += AT_A_TIME) {
    await Promise.all(fresh.slice(at, at + AT_A_TIME).map((test) => one(test)))
  }
  return fresh.map(({ id, group, kind = 'required', name, depends_on: needs = [] }) => {
    const result = player.testResults[id]
    const passed = result === true
    return { id, group, kind, name, needs, passed, failure: passed ? '' : String(result?.[1] ?? result) }
  })
}

// What the edition publishes of the caches that stand where a proxy does.
async function published () {
  const peers = (await load('results/index.mjs')).default.filter(({ type }) => type === 'rev-proxy')
  return peers.map(({ name, version, file }) => {
    const results = JSON.parse(fs.readFileSync(path.join(suite, 'results', file)))
    const passed = Object.keys(results).filter((id) => results[id] === true)
    return { name, version, passed }
  })
}

origin.listen(0, '127.0.0.1', async () => {
  const address = `127.0.0.1:${origin.address().port}`
  process.stdout.write(`${JSON.stringify({ origin: address, peers: await published() })}\n`)
  for await (const line of readline.createInterface({ input: process.stdin })) {
    process.stdout.write(`${JSON.stringify(await play(JSON.parse(line)))}\n`)
  }
  process.exit()
})
