/** One bit of a record that is kept as JSON: every one of them, and what readers make of it. */
import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { decodeRecord, encodeRecord, type StoredRecord } from './divergence/record.ts'
import { type MembersFile, readMembers, writeMembers } from './replication/members-file.ts'
import { decodeSnapshot, encodeSnapshot, type StoredSnapshot } from './snapshots/store/record.ts'
import { decodeMeta, encodeMeta } from './volumes/file/meta.ts'
import { flipped } from '../../test/support/flipped.ts'

/** `decode` says undefined where it refuses the text. */
function everyBit<T>(text: string, whole: T, decode: (text: string) => T | undefined): void {
  assert.deepEqual(decode(text), whole)
  const bytes = Buffer.from(text)
  for (let bit = 0; bit < bytes.length * 8; bit++) {
    const found = decode(flipped(bytes, bit).toString('utf8'))
    // White space behind the checksum may be another one: then it says what it said.
    if (found !== undefined) assert.deepEqual(found, whole, `bit ${bit}`)
  }
}

const refused = <T extends object>(found: T | { readonly problem: string }): T | undefined =>
  'problem' in found ? undefined : found

test('of a volume: never another size, owner or session', () => {
  const serving = { mode: 'session', session: 'group', pair: 'pair' } as const
  const record = {
    id: 'volume-1',
    sizeBytes: 1_073_741_824,
    createdMs: 1_700_000_000_000,
    owner: 'project',
    serving,
    failed: null,
    limit: { revision: 7, iops: 100, bytesPerSecond: null, readOnly: false },
  }
  everyBit(encodeMeta(record), record, (text) => refused(decodeMeta(text)))
})

test('of a snapshot: never another state or size', () => {
  const snapshot: StoredSnapshot = {
    id: 's1',
    purpose: 'kept',
    state: 'rolling_back',
    reason: null,
    takenMs: 1_700_000_000_000,
    stallMs: 3,
    volumes: [{ volume: 'v1', kind: 'before_image', sizeBytes: 65_536 }],
  }
  everyBit(encodeSnapshot(snapshot), snapshot, (text) => refused(decodeSnapshot(text)))
})

test('of a divergence: never another range', () => {
  const wanted = [{ offset: 65_536, length: 131_072 }]
  const record: StoredRecord = {
    version: 2,
    divergence: 'd1',
    session: 'group',
    site: 'az1',
    winner: 'az2',
    owner: 'project',
    base_epoch: 2,
    epoch: 5,
    at: 1_700_000_000_000,
    why: 'it wrote alone',
    state: 'keeping',
    reason: null,
    volumes: [{ volume: 'v1', pair: 'p1', size_bytes: 1_048_576, ranges: 0, bytes: 0, wanted }],
  }
  everyBit(encodeRecord(record), record, decodeRecord)
})

test('of the members of a session: never another volume, nor one that has joined and had not', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'holdfast-members-'))
  t.after(() => rmSync(directory, { recursive: true }))
  const members: MembersFile = {
    version: 2,
    peer_link: '10.0.0.2:7430',
    copy_rate_bytes: null,
    members: [
      {
        index: 1,
        pair: 'p1',
        size_bytes: 1_048_576,
        volumes: { az1: 'a', az2: 'b' },
        replica_blank: false,
        joined: false,
      },
    ],
    removed: [],
  }
  await writeMembers(directory, members)
  assert.deepEqual(await readMembers(directory), members)
  const path = join(directory, 'members.json')
  const bytes = readFileSync(path)
  // Each of them is a file: one bit of every byte, another one from byte to byte.
  for (let at = 0; at < bytes.length; at++) {
    writeFileSync(path, flipped(bytes, at * 8 + (at % 8)))
    const found = await readMembers(directory)
    if (found !== 'damaged') assert.deepEqual(found, members, `byte ${at}`)
  }
})
