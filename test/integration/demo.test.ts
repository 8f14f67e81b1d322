import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import type { DemoReport } from '#cli/demo/story.ts'

const BINARY = fileURLToPath(new URL('../../bin/holdfast', import.meta.url))

test('the demo loses a site in the middle of its load and not one acknowledged write', async (t) => {
  const parent = await mkdtemp(join(tmpdir(), 'holdfast-demo-test-'))
  t.after(() => rm(parent, { recursive: true, force: true }))
  const data = join(parent, 'd')
  const child = spawn(BINARY, ['demo', '--json', '--seconds', '3', '--data', data], {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let out = ''
  let err = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => (out += text))
  child.stderr.setEncoding('utf8').on('data', (text: string) => (err += text))
  const [code] = (await once(child, 'close')) as [number]
  assert.equal(code, 0, `${out}\n${err}`)

  const events = out
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as { event: string })
  const report = events.at(-1) as unknown as DemoReport & { event: string }
  assert.equal(report.event, 'report')
  assert.equal(report.verified, true)
  assert.equal(report.writes.lost, 0)
  assert.ok(report.writes.acknowledged > 1_000)
  assert.ok(report.rate.writes > 0)
  const { server } = report
  if (server === null) {
    t.diagnostic('told without a server: QEMU is not installed')
    assert.deepEqual(report.killed, ['az1-agent'])
  } else {
    assert.match(report.killed.join(' '), /^az1-agent az1-guest-[0-9a-f-]{36}$/)
    assert.ok(server.acknowledged > 0 && server.found >= server.acknowledged)
    assert.ok(server.continued > server.found)
    t.diagnostic(
      `counter ${server.acknowledged} acknowledged, ${server.found} found after the failover, ` +
        `${server.bootMs} ms after the order to start`,
    )
  }
  assert.equal(report.image.databaseIntegrity, 'ok')
  t.diagnostic(
    `${report.writes.acknowledged} acknowledged, writable after ${report.writableAfterMs} ms, ` +
      `${Math.round(report.rate.writes / report.rate.seconds)} writes/s`,
  )
  assert.ok(!existsSync(data), 'it cleans up after itself')
})
