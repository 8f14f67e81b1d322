import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { createLog } from '#base/log.ts'
import type { Snapshots } from '#agent/snapshots/snapshots.ts'
import type { SessionCore } from '../core.ts'
import { KeptCopy } from './kept-copy.ts'
import type { Members } from '../members.ts'
import { type SessionEvent, unopened } from './session.ts'

test('a disk without room for the snapshot, or for the note beside it, is no end of the process', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'holdfast-kept-'))
  t.after(() => rmSync(directory, { recursive: true }))
  const full = Object.assign(new Error('ENOSPC: no space left on device'), { code: 'ENOSPC' })
  const reported: boolean[] = []
  const core = {
    id: 's',
    log: createLog('test', 'silent'),
    now: () => 1,
    session: { stored: unopened('s') },
    handle: (event: SessionEvent) => {
      if (event.kind === 'kept') reported.push(event.ok)
      return Promise.resolve()
    },
    fatal: (error: unknown) => assert.fail(String(error)),
  } as unknown as SessionCore
  const snapshots = {
    delete: () => Promise.resolve(),
    take: () => Promise.reject(full),
  } as unknown as Snapshots
  const members = { values: () => [] } as unknown as Members
  const kept = new KeptCopy({ core, members, snapshots, divergences: null, directory })
  kept.keep('k1', true)
  await kept.settled
  assert.deepEqual(reported, [false])
})

test('a copy that is asked for twice is taken once after the other, and only the second is reported', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'holdfast-kept-'))
  t.after(() => rmSync(directory, { recursive: true }))
  const calls: string[] = []
  const reported: string[] = []
  const later = () => new Promise<void>((resolve) => setImmediate(resolve))
  const snapshots = {
    async delete(id: string) {
      calls.push(`delete ${id}`)
      await later()
    },
    async take({ id }: { id: string }) {
      calls.push(`take ${id}`)
      await later()
      calls.push(`taken ${id}`)
      return { stallMs: 0 }
    },
  } as unknown as Snapshots
  const core = {
    id: 's',
    log: createLog('test', 'silent'),
    now: () => 1,
    session: { stored: unopened('s') },
    handle: (event: SessionEvent) => {
      if (event.kind === 'kept') reported.push(`${event.id} ${event.ok} after ${calls.length}`)
      return Promise.resolve()
    },
    fatal: (error: unknown) => assert.fail(String(error)),
  } as unknown as SessionCore
  const members = { values: () => [] } as unknown as Members
  const kept = new KeptCopy({ core, members, snapshots, divergences: null, directory })
  kept.keep('k1', true)
  kept.keep('k1', true)
  await kept.settled
  const one = ['delete s-k1', 'take s-k1', 'taken s-k1']
  assert.deepEqual(calls, [...one, ...one])
  assert.deepEqual(reported, ['k1 true after 6'])
  // Of another name: the session lets go of the one that it does not want.
  kept.keep('k2', true)
  kept.keep('k3', true)
  await kept.settled
  assert.deepEqual(reported.slice(1), ['k2 true after 9', 'k3 true after 12'])
})
