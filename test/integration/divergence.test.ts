/** What a losing site had acknowledged alone, as its operator meets it: real processes, a real split, the command line. */
import assert from 'node:assert/strict'
import { mkdtemp, readdir, readFile, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { connectNbd } from '#client/nbd/client.ts'
import type { Lab } from '../lab.ts'
import { type Member, ProtectedGroup } from '../support/protected-group.ts'

const MIB = 1024 * 1024
const BLOCK = 64 * 1024

let group: ProtectedGroup
let lab: Lab
let one: Member
let two: Member

before(async () => {
  group = await ProtectedGroup.start('--no-restart')
  lab = group.lab
  ;[one, two] = group.members
})
after(async () => {
  await lab?.close()
})

test('writes that only the losing site had are kept, shown, exported and deleted by the operator alone', async () => {
  const az1 = join(lab.data, 'az1-agent', 'nbd.sock')
  await group.write(one.pair, 0, 0x11, MIB)
  lab.kill('az2-agent')
  // The writer goes on alone; what it acknowledges now, the other site never gets.
  await lab.until(
    'az1 writes alone',
    () => group.show(),
    ({ record }) => record.state === 'solo',
  )
  const alone = await connectNbd({ unix: az1 }, { exportName: one.pair })
  await alone.write(2 * BLOCK, Buffer.alloc(BLOCK, 0x22))
  await alone.write(20 * MIB, Buffer.alloc(2 * BLOCK, 0x33))
  await alone.flush()
  lab.kill('az1-agent')
  await alone.disconnect().catch(() => undefined)
  await lab.holdfast('site', 'start', 'az2')
  const failover = await lab.until(
    'az2 takes over by force',
    () => group.cli('group', 'failover', group.id, '--force'),
    ({ code }) => code === 0,
  )
  assert.equal(failover.code, 0)
  await group.write(one.pair, 2 * BLOCK, 0x44, BLOCK)
  await lab.holdfast('site', 'start', 'az1')
  await lab.until(
    'protection is back',
    () => group.cli('group', 'start', group.id),
    ({ code }) => code === 0,
  )
  await group.inSync()

  const list = await lab.until(
    'the record is there',
    () =>
      lab.call<{ divergences: { id: string; state: string; site: string; bytes: number }[] }>(
        'GET',
        `/api/v1/groups/${group.id}/divergences`,
      ),
    ({ body }) => body.divergences[0]?.state === 'kept',
  )
  const [record] = list.body.divergences
  assert.ok(record !== undefined && list.body.divergences.length === 1)
  assert.deepEqual([record.site, record.bytes], ['az1', 3 * BLOCK])
  const shown = await group.cli('divergence', 'show', record.id, '--json')
  assert.equal(shown.code, 0, shown.err)
  const { volumes: kept } = JSON.parse(shown.out) as {
    volumes: { volume: string; ranges: { offset: number; length: number }[] }[]
  }
  const ranges = [
    { offset: 2 * BLOCK, length: BLOCK },
    { offset: 20 * MIB, length: 2 * BLOCK },
  ]
  assert.deepEqual(kept.find(({ volume }) => volume === one.id)?.ranges, ranges)
  assert.match((await group.cli('divergence', 'list')).out, new RegExp(`^${record.id} `, 'm'))

  const scratch = await mkdtemp(join(tmpdir(), 'holdfast-export-'))
  try {
    const sparse = join(scratch, 'sparse')
    const saved = await group.cli('divergence', 'export', record.id, '--to', sparse)
    assert.equal(saved.code, 0, saved.err)
    const raw = join(sparse, `${one.id}.raw`)
    assert.ok((await stat(raw)).size === 1024 * MIB && (await stat(raw)).blocks * 512 < 4 * MIB)
    const bytes = await readFile(raw)
    assert.deepEqual(bytes.subarray(2 * BLOCK, 3 * BLOCK), Buffer.alloc(BLOCK, 0x22))
    assert.deepEqual(bytes.subarray(20 * MIB, 20 * MIB + 2 * BLOCK), Buffer.alloc(2 * BLOCK, 0x33))
    const pieces = join(scratch, 'pieces')
    assert.equal(
      (await group.cli('divergence', 'export', record.id, '--to', pieces, '--format', 'ranges'))
        .code,
      0,
    )
    const names = (await readdir(join(pieces, one.id))).toSorted()
    assert.deepEqual(
      names,
      ranges.map(({ offset, length }) => `${offset}-${length}`),
    )
    const manifest = JSON.parse(await readFile(join(pieces, 'manifest.json'), 'utf8')) as {
      files: unknown[]
    }
    assert.equal(manifest.files.length, 2)
  } finally {
    await rm(scratch, { recursive: true, force: true })
  }

  const path = `/api/v1/divergences/${record.id}`
  // For another project, even of the same administrator, there is no such record.
  const other = await lab.ok<{ project: { id: string } }>(
    201,
    'POST',
    '/api/v1/identity/projects',
    {
      name: 'local-1_other',
      description: null,
    },
  )
  const elsewhere = await lab.login(other.project.id)
  for (const [method, url] of [
    ['GET', path],
    ['GET', `${path}/ranges?volume=${one.id}`],
    ['GET', `${path}/data?volume=${one.id}&offset=${2 * BLOCK}&length=${BLOCK}`],
    ['DELETE', path],
    ['GET', `/api/v1/groups/${group.id}/divergences`],
  ] as const) {
    assert.equal((await lab.call(method, url, undefined, elsewhere)).status, 404, url)
  }
  const theirs = await lab.call('GET', '/api/v1/divergences', undefined, elsewhere)
  assert.deepEqual(theirs.body, { divergences: [], silent_sites: [] })

  const outside = `${path}/data?volume=${one.id}&offset=0&length=${BLOCK}`
  assert.deepEqual(await group.codeOf('GET', outside), [409, 'RANGE_NOT_KEPT'])
  const stranger = `${path}/ranges?volume=${two.dr}`
  assert.deepEqual(await group.codeOf('GET', stranger), [404, 'DIVERGENCE_UNKNOWN'])
  assert.equal((await group.cli('divergence', 'delete', record.id)).code, 2)
  assert.equal((await group.cli('divergence', 'delete', record.id, '--yes')).code, 0)
  assert.deepEqual(await group.codeOf('GET', path), [404, 'DIVERGENCE_UNKNOWN'])
  const verified = await group.cli('group', 'verify', group.id)
  assert.equal(verified.code, 0, verified.out + verified.err)
})
