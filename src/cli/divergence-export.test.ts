import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { ApiSession, type Fetch } from '#client/api.ts'
import type { Divergence } from '#client/protection.ts'
import { exportDivergence } from './divergence-export.ts'

const BLOCK = 64 * 1024
const LOGIN = { url: 'http://127.0.0.1:1', domain: 'd', user: 'u', password: 'p', projectId: 'p1' }

/** Every byte of block n is n; a range with the damaged block is refused as the control plane refuses it. */
const server =
  (damaged: number): Fetch =>
  async (url) => {
    const { pathname, searchParams } = new URL(url)
    const told = (status: number, body: object) => ({
      status,
      headers: { get: (name: string) => (name === 'x-subject-token' ? 'token' : null) },
      text: () => Promise.resolve(JSON.stringify(body)),
    })
    if (pathname === '/v3/auth/tokens') return told(201, { token: { project: { id: 'p1' } } })
    const [offset, length] = ['offset', 'length'].map((name) => Number(searchParams.get(name)))
    const blocks = Array.from(
      { length: (length ?? 0) / BLOCK },
      (_, i) => (offset ?? 0) / BLOCK + i,
    )
    if (blocks.includes(damaged)) {
      return told(409, { error: { code: 'SNAPSHOT_BROKEN', message: 'damaged', hint: 'look' } })
    }
    const bytes = Buffer.concat(blocks.map((n) => Buffer.alloc(BLOCK, n)))
    return {
      ...told(200, {}),
      arrayBuffer: async () => await Promise.resolve(new Uint8Array(bytes).buffer),
    }
  }

const record: Divergence = {
  id: 'd1',
  group: 'g',
  site: 'az1',
  winner: 'az2',
  base_epoch: 1,
  epoch: 3,
  at: '2026-11-22T09:00:00.000Z',
  why: 'az1 wrote alone',
  state: 'kept',
  reason: null,
  bytes: 5 * BLOCK,
  volumes: [],
}
const ranges = [
  { offset: 2 * BLOCK, length: 4 * BLOCK },
  { offset: 9 * BLOCK, length: BLOCK },
]
const volumes = [{ volume: 'v', pair: 'p', size_bytes: 12 * BLOCK, bytes: 5 * BLOCK, ranges }]

for (const format of ['sparse', 'ranges'] as const) {
  test(`a block that is damaged is a hole in the export (${format}), named by the manifest, and all others are there`, async (t) => {
    const parent = mkdtempSync(join(tmpdir(), 'holdfast-export-'))
    t.after(() => rmSync(parent, { recursive: true }))
    const directory = join(parent, 'out')
    const told: number[] = []
    const api = new ApiSession(LOGIN, server(5))
    const onBytes = (done: number) => void told.push(done)
    const lost = await exportDivergence({ api, record, volumes, directory, format, onBytes })
    const damaged = [{ volume: 'v', offset: 5 * BLOCK, length: BLOCK }]
    assert.deepEqual(lost, damaged)
    const manifest: unknown = JSON.parse(readFileSync(join(directory, 'manifest.json'), 'utf8'))
    assert.deepEqual((manifest as { unreadable: unknown }).unreadable, damaged)
    assert.equal(told.at(-1), 5 * BLOCK)
    const read = (offset: number, length: number): Buffer =>
      format === 'sparse'
        ? readFileSync(join(directory, 'v.raw')).subarray(offset, offset + length)
        : readFileSync(join(directory, 'v', `${offset}-${length}`))
    const wanted = [2, 3, 4, 0].map((byte) => Buffer.alloc(BLOCK, byte))
    assert.ok(read(2 * BLOCK, 4 * BLOCK).equals(Buffer.concat(wanted)))
    assert.ok(read(9 * BLOCK, BLOCK).equals(Buffer.alloc(BLOCK, 9)))
  })
}
