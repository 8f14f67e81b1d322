/**
 * Verification, snapshots, rebuild and divergence records as users meet them: over the native API and the command line, on a complete
 * system of real processes.
 */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, fdatasyncSync, openSync, readFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { Lab } from '../lab.ts'

const PROGRAM = join(import.meta.dirname, '..', '..', 'src', 'main.ts')
const MIB = 1024 * 1024
const BLOCK = 64 * 1024

interface Volume {
  readonly id: string
  readonly pair: string
  /** The disk at the DR site. */
  readonly dr: string
}

let lab: Lab
let group = ''
const volumes: Volume[] = []

before(async () => {
  lab = await Lab.start({ HOLDFAST_PEER_SILENCE_MS: '1500', HOLDFAST_HEARTBEAT_MS: '200' })
  const made = await cli('group', 'create', 'g', '--source', 'az1', '--target', 'az2')
  assert.equal(made.code, 0, made.err)
  const groups = JSON.parse((await cli('group', 'list', '--json')).out) as {
    groups: { id: string }[]
  }
  group = groups.groups[0]?.id ?? ''
  for (const name of ['one', 'two']) {
    const id = await lab.volume(1, 'az1', name)
    const pairing = await cli('pair', 'create', name, '--group', group, '--volume', id, '--json')
    const { entities } = JSON.parse(pairing.out) as { entities: Record<string, string> }
    const pair = entities['replication_pair_id'] ?? ''
    const shown = JSON.parse((await cli('pair', 'show', pair, '--json')).out) as {
      volume_ids: string
    }
    volumes.push({ id, pair, dr: shown.volume_ids.split(',')[1] ?? '' })
  }
  assert.equal((await cli('group', 'start', group)).code, 0)
  await inSync()
})
after(async () => {
  await lab?.close()
})

interface Ended {
  readonly code: number
  readonly out: string
  readonly err: string
}

async function cli(...args: string[]): Promise<Ended> {
  const child = spawn(process.execPath, [PROGRAM, ...args, '--data', lab.data], {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let out = ''
  let err = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => (out += text))
  child.stderr.setEncoding('utf8').on('data', (text: string) => (err += text))
  const [code] = (await once(child, 'close')) as [number]
  return { code, out, err }
}

interface GroupView {
  readonly sync: string
  readonly last_verified_at: string | null
  readonly mismatched_bytes: number
  readonly record: { readonly state: string; readonly writer: string }
}

const show = async (): Promise<GroupView> =>
  (await lab.ok<{ group: GroupView }>(200, 'GET', `/api/v1/groups/${group}`)).group

const inSync = () =>
  lab.until('the group is in sync', show, ({ sync, record }) => {
    return sync === 'in_sync' && record.state === 'in_sync'
  })

const codeOf = async (method: string, path: string, body?: unknown): Promise<[number, string]> => {
  const reply = await lab.call<{ error?: { code: string; hint?: string } }>(method, path, body)
  if (reply.status >= 400) assert.ok(reply.body.error?.hint, `${path} says what to do`)
  return [reply.status, reply.body.error?.code ?? '']
}

const fileOf = (site: string, volume: string): string =>
  join(lab.data, `${site}-agent`, 'volumes', volume, 'data')

function damage(site: string, volume: string, offset: number, text: string): void {
  const fd = openSync(fileOf(site, volume), 'r+')
  try {
    writeSync(fd, Buffer.from(text), 0, text.length, offset)
    fdatasyncSync(fd)
  } finally {
    closeSync(fd)
  }
}

async function write(name: string, offset: number, fill: number, length = MIB): Promise<void> {
  const client = await lab.nbd(name)
  await client.write(offset, Buffer.alloc(length, fill))
  await client.flush()
  await client.disconnect()
}

const [one, two] = [() => volumes[0] as Volume, () => volumes[1] as Volume]

test('verification finds planted damage, says where, fails, repairs on request, and shows since when it is good', async () => {
  await write(one().pair, 0, 1)
  await write(two().pair, 8 * MIB, 2)
  const clean = await cli('group', 'verify', group, '--json')
  assert.equal(clean.code, 0, clean.err)
  const { last_verified_at: at, mismatched_bytes } = await lab.until(
    'it is shown',
    show,
    ({ last_verified_at }) => last_verified_at !== null,
  )
  assert.ok(at !== null && mismatched_bytes === 0)

  damage('az2', one().dr, 3 * BLOCK + 7, 'bit rot')
  damage('az2', two().dr, 500 * MIB, 'stray')
  const found = await cli('group', 'verify', group)
  assert.equal(found.code, 1)
  assert.match(found.err, /128 KiB differ/)
  assert.match(found.out, new RegExp(`^${one().pair} +${3 * BLOCK} +${BLOCK} +differs +no$`, 'm'))
  assert.match(found.out, new RegExp(`^${two().pair} +${500 * MIB} +${BLOCK} +differs +no$`, 'm'))
  await lab.until('differences are shown', show, (view) => view.mismatched_bytes === 2 * BLOCK)

  const repaired = await cli('group', 'verify', group, '--repair', '--json')
  assert.equal(repaired.code, 0, repaired.err)
  const last = JSON.parse(repaired.out.trim().split('\n').at(-1) ?? '') as {
    run: { mismatched_bytes: number; repaired_bytes: number; ranges: { repaired: boolean }[] }
  }
  assert.deepEqual([last.run.mismatched_bytes, last.run.repaired_bytes], [2 * BLOCK, 2 * BLOCK])
  assert.ok(last.run.ranges.every((range) => range.repaired))
  await lab.until('nothing is left', show, (view) => view.mismatched_bytes === 0)
  assert.deepEqual(
    readFileSync(fileOf('az2', two().dr)).subarray(500 * MIB, 500 * MIB + BLOCK),
    Buffer.alloc(BLOCK),
  )
})

test('a slow verification is refused a second time, followed, and cancelled', async () => {
  const begun = await cli('group', 'verify', group, '--rate', '1', '--no-wait')
  assert.equal(begun.code, 0, begun.err)
  assert.deepEqual(await codeOf('POST', `/api/v1/groups/${group}/verify`), [409, 'VERIFY_RUNNING'])
  await lab.until(
    'it runs',
    () =>
      lab.call<{ verify: { run: { state: string } | null } }>(
        'GET',
        `/api/v1/groups/${group}/verify`,
      ),
    ({ body }) => body.verify.run?.state === 'running',
  )
  assert.equal((await cli('group', 'verify', group, '--cancel')).code, 0)
  const watched = await cli('group', 'verify', group, '--watch')
  assert.ok(watched.code === 0 || /CANCELLED|cancelled/.test(watched.err), watched.err)
  await lab.until(
    'the agent has heard of it',
    () =>
      lab.call<{ verify: { run: { state: string }; operation_id: string | null } }>(
        'GET',
        `/api/v1/groups/${group}/verify`,
      ),
    ({ body }) => body.verify.run.state === 'cancelled' && body.verify.operation_id === null,
  )
  const cancel = `/api/v1/groups/${group}/verify/cancel`
  assert.deepEqual(await codeOf('POST', cancel), [409, 'VERIFY_NOT_RUNNING'])
})

test('snapshots of a group name their moment; a replicating volume is not rolled back, a plain one is', async () => {
  const taken = await cli('snapshot', 'create', 'moment', '--group', group, '--json')
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
  assert.deepEqual(await codeOf('POST', `${path}/rollback`), [409, 'VOLUME_PAIRED'])
  assert.equal((await cli('snapshot', 'delete', snapshot.id)).code, 0)
  assert.deepEqual(await codeOf('GET', path), [404, 'SNAPSHOT_UNKNOWN'])

  const plain = await lab.volume(1, 'az1', 'plain')
  await write(plain, 0, 7)
  const before = await cli('snapshot', 'create', 'plain', '--volume', plain, '--json')
  const { id } = JSON.parse(before.out.trim().split('\n').at(-1) ?? '') as { id: string }
  await write(plain, 0, 8, BLOCK)
  await write(plain, 100 * MIB, 9, BLOCK)
  const unsure = await cli('snapshot', 'rollback', id)
  assert.equal(unsure.code, 2)
  assert.match(unsure.err, /--yes is required/)
  const back = await cli('snapshot', 'rollback', id, '--yes')
  assert.equal(back.code, 0, back.err)
  const client = await lab.nbd(plain)
  assert.deepEqual(await client.read(0, MIB), Buffer.alloc(MIB, 7))
  assert.deepEqual(await client.read(100 * MIB, BLOCK), Buffer.alloc(BLOCK))
  await client.disconnect()
  const listed = await cli('snapshot', 'list')
  assert.match(listed.out, new RegExp(`^${id} +plain +available`, 'm'))
})

test('a good copy is rebuilt only by force, and is a copy of everything afterwards', async () => {
  const path = `/api/v1/pairs/${one().pair}/rebuild`
  assert.deepEqual(await codeOf('POST', path, {}), [409, 'COPY_IS_GOOD'])
  assert.deepEqual(await codeOf('POST', '/api/v1/pairs/none/rebuild', {}), [404, 'PAIR_UNKNOWN'])
  const rebuilt = await cli('pair', 'rebuild', one().pair, '--force')
  assert.equal(rebuilt.code, 0, rebuilt.err)
  await inSync()
  const verified = await cli('group', 'verify', group)
  assert.equal(verified.code, 0, verified.out + verified.err)
  const both = [fileOf('az1', one().id), fileOf('az2', one().dr)] as const
  assert.ok(readFileSync(both[0]).equals(readFileSync(both[1])))
})
