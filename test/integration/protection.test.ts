/**
 * Verification, snapshots and rebuild as users meet them: over the native API and the command line, on a complete system of real
 * processes.
 */
import assert from 'node:assert/strict'
import { closeSync, fdatasyncSync, openSync, readFileSync, writeSync } from 'node:fs'
import { after, before, test } from 'node:test'
import type { Lab } from '../lab.ts'
import { type Member, ProtectedGroup } from '../support/protected-group.ts'

const MIB = 1024 * 1024
const BLOCK = 64 * 1024

let group: ProtectedGroup
let lab: Lab
let one: Member
let two: Member

before(async () => {
  group = await ProtectedGroup.start()
  lab = group.lab
  ;[one, two] = group.members
})
after(async () => {
  await lab?.close()
})

function damage(site: string, volume: string, offset: number, text: string): void {
  const fd = openSync(group.file(site, volume), 'r+')
  try {
    writeSync(fd, Buffer.from(text), 0, text.length, offset)
    fdatasyncSync(fd)
  } finally {
    closeSync(fd)
  }
}

test('verification finds planted damage, says where, fails, repairs on request, and shows since when it is good', async () => {
  await group.write(one.pair, 0, 1, MIB)
  await group.write(two.pair, 8 * MIB, 2, MIB)
  const clean = await group.cli('group', 'verify', group.id, '--json')
  assert.equal(clean.code, 0, clean.err)
  const { last_verified_at: at, mismatched_bytes } = await lab.until(
    'it is shown',
    () => group.show(),
    ({ last_verified_at }) => last_verified_at !== null,
  )
  assert.ok(at !== null && mismatched_bytes === 0)

  damage('az2', one.dr, 3 * BLOCK + 7, 'bit rot')
  damage('az2', two.dr, 500 * MIB, 'stray')
  const found = await group.cli('group', 'verify', group.id)
  assert.equal(found.code, 1)
  assert.match(found.err, /128 KiB differ/)
  assert.match(found.out, new RegExp(`^${one.pair} +${3 * BLOCK} +${BLOCK} +differs +no$`, 'm'))
  assert.match(found.out, new RegExp(`^${two.pair} +${500 * MIB} +${BLOCK} +differs +no$`, 'm'))
  await lab.until(
    'differences are shown',
    () => group.show(),
    (view) => view.mismatched_bytes === 2 * BLOCK,
  )

  const repaired = await group.cli('group', 'verify', group.id, '--repair', '--json')
  assert.equal(repaired.code, 0, repaired.err)
  const last = JSON.parse(repaired.out.trim().split('\n').at(-1) ?? '') as {
    run: { mismatched_bytes: number; repaired_bytes: number; ranges: { repaired: boolean }[] }
  }
  assert.deepEqual([last.run.mismatched_bytes, last.run.repaired_bytes], [2 * BLOCK, 2 * BLOCK])
  assert.ok(last.run.ranges.every((range) => range.repaired))
  await lab.until(
    'nothing is left',
    () => group.show(),
    (view) => view.mismatched_bytes === 0,
  )
  assert.deepEqual(
    readFileSync(group.file('az2', two.dr)).subarray(500 * MIB, 500 * MIB + BLOCK),
    Buffer.alloc(BLOCK),
  )
})

test('a slow verification is refused a second time, followed, and cancelled', async () => {
  const begun = await group.cli('group', 'verify', group.id, '--rate', '1', '--no-wait')
  assert.equal(begun.code, 0, begun.err)
  assert.deepEqual(await group.codeOf('POST', `/api/v1/groups/${group.id}/verify`), [
    409,
    'VERIFY_RUNNING',
  ])
  await lab.until(
    'it runs',
    () =>
      lab.call<{ verify: { run: { state: string } | null } }>(
        'GET',
        `/api/v1/groups/${group.id}/verify`,
      ),
    ({ body }) => body.verify.run?.state === 'running',
  )
  assert.equal((await group.cli('group', 'verify', group.id, '--cancel')).code, 0)
  const watched = await group.cli('group', 'verify', group.id, '--watch')
  assert.ok(watched.code === 0 || /CANCELLED|cancelled/.test(watched.err), watched.err)
  await lab.until(
    'the agent has heard of it',
    () =>
      lab.call<{ verify: { run: { state: string }; operation_id: string | null } }>(
        'GET',
        `/api/v1/groups/${group.id}/verify`,
      ),
    ({ body }) => body.verify.run.state === 'cancelled' && body.verify.operation_id === null,
  )
  const cancel = `/api/v1/groups/${group.id}/verify/cancel`
  assert.deepEqual(await group.codeOf('POST', cancel), [409, 'VERIFY_NOT_RUNNING'])
})

test('snapshots of a group name their moment; a replicating volume is not rolled back, a plain one is', async () => {
  const taken = await group.cli('snapshot', 'create', 'moment', '--group', group.id, '--json')
  assert.equal(taken.code, 0, taken.err)
  const snapshot = JSON.parse(taken.out.trim().split('\n').at(-1) ?? '') as {
    id: string
    status: string
    site: string
    sequence: number
    volumes: unknown[]
  }
  assert.deepEqual([snapshot.status, snapshot.site], ['available', 'az1'])
  assert.ok(snapshot.sequence > 0 && snapshot.volumes.length === 2)
  const path = `/api/v1/snapshots/${snapshot.id}`
  assert.deepEqual(await group.codeOf('POST', `${path}/rollback`), [409, 'VOLUME_PAIRED'])
  assert.equal((await group.cli('snapshot', 'delete', snapshot.id)).code, 0)
  assert.deepEqual(await group.codeOf('GET', path), [404, 'SNAPSHOT_UNKNOWN'])

  const plain = await lab.volume(1, 'az1', 'plain')
  await group.write(plain, 0, 7, MIB)
  const before = await group.cli('snapshot', 'create', 'plain', '--volume', plain, '--json')
  const { id } = JSON.parse(before.out.trim().split('\n').at(-1) ?? '') as { id: string }
  await group.write(plain, 0, 8, BLOCK)
  await group.write(plain, 100 * MIB, 9, BLOCK)
  const unsure = await group.cli('snapshot', 'rollback', id)
  assert.equal(unsure.code, 2)
  assert.match(unsure.err, /--yes is required/)
  const back = await group.cli('snapshot', 'rollback', id, '--yes')
  assert.equal(back.code, 0, back.err)
  const client = await lab.nbd(plain)
  assert.deepEqual(await client.read(0, MIB), Buffer.alloc(MIB, 7))
  assert.deepEqual(await client.read(100 * MIB, BLOCK), Buffer.alloc(BLOCK))
  await client.disconnect()
  const listed = await group.cli('snapshot', 'list')
  assert.match(listed.out, new RegExp(`^${id} +plain +available`, 'm'))
})

test('a good copy is rebuilt only by force, and is a copy of everything afterwards', async () => {
  const path = `/api/v1/pairs/${one.pair}/rebuild`
  assert.deepEqual(await group.codeOf('POST', path, {}), [409, 'COPY_IS_GOOD'])
  assert.deepEqual(await group.codeOf('POST', '/api/v1/pairs/none/rebuild', {}), [
    404,
    'PAIR_UNKNOWN',
  ])
  const rebuilt = await group.cli('pair', 'rebuild', one.pair, '--force')
  assert.equal(rebuilt.code, 0, rebuilt.err)
  await group.inSync()
  const verified = await group.cli('group', 'verify', group.id)
  assert.equal(verified.code, 0, verified.out + verified.err)
  const both = [group.file('az1', one.id), group.file('az2', one.dr)] as const
  assert.ok(readFileSync(both[0]).equals(readFileSync(both[1])))
})
