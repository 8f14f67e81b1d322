import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { DiskStanding } from '#agent/compute/driver.ts'
import type { Device } from '#agent/nbd/device.ts'
import { ExportTable } from '#agent/nbd/exports.ts'
import type { Role } from '#agent/replication/session/phases.ts'
import type { Serving, VolumeStore } from '#agent/volumes/volume-store.ts'
import { diskStandings } from './disk-standings.ts'

const device: Device = { sizeBytes: 1, submit: () => undefined }

/** The standing of a volume that is `serving`, at a site of this role in its session. */
function standing(serving: Serving | undefined, role: Role | undefined, open: boolean): string {
  const exports = new ExportTable()
  if (open) exports.serve('v', device)
  else exports.refuse('v', 'refused')
  const volumes = {
    record: () => (serving === undefined ? undefined : { id: 'v', serving }),
  } as unknown as VolumeStore
  const found: DiskStanding = diskStandings({
    volumes,
    exports,
    sessions: { roleAt: () => (role === undefined ? undefined : { role, epoch: 3 }) },
  }).of('v')
  return 'reason' in found ? `${found.kind}: ${found.reason}` : found.kind
}
const session: Serving = { mode: 'session', session: 's', pair: 'p' }

test('a plain volume is served, or waits while it refuses', () => {
  assert.equal(standing({ mode: 'standalone' }, undefined, true), 'served')
  assert.equal(standing({ mode: 'standalone' }, undefined, false), 'waiting: refused')
})

test('a standby copy is denied, a volume of elsewhere is unknown', () => {
  assert.equal(standing({ mode: 'standby', reason: 'a copy' }, undefined, false), 'denied: a copy')
  assert.equal(standing(undefined, undefined, false), 'unknown')
})

test('the writer of a session serves, or waits: it starts, or is frozen', () => {
  assert.equal(standing(session, 'writer', true), 'served')
  assert.equal(standing(session, 'writer', false), 'waiting: refused')
})

test('who is not the writer is denied, even while the export is still open', () => {
  for (const role of ['replica', 'fenced'] as const) {
    assert.match(standing(session, role, true), /^denied: .*epoch 3/)
  }
})

test('a session that begins or ends is waited for: guests live through both', () => {
  assert.match(standing(session, undefined, false), /^waiting/)
  assert.match(standing(session, 'none', false), /^waiting/)
  assert.match(standing(session, 'none', true), /^waiting/)
})

test('whoever watches is told when a name is served, refused, or removed', () => {
  const exports = new ExportTable()
  const told: string[] = []
  const sessions = { roleAt: () => undefined }
  diskStandings({ volumes: {} as VolumeStore, exports, sessions }).watch((name) => told.push(name))
  exports.serve('a', device)
  exports.refuse('a', 'no')
  exports.remove('a', 'gone')
  assert.deepEqual(told, ['a', 'a', 'a'])
})
