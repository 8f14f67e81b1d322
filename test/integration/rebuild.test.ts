/** A copy that has failed is replaced by an empty one and copied anew, between two real site processes. */
import assert from 'node:assert/strict'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterEach, beforeEach, test } from 'node:test'
import { Lab, type Site } from './replication-lab/lab.ts'
import { until } from '../support/until.ts'
import { Load } from './replication-lab/load.ts'

const MIB = 1024 * 1024
const SIZE = 32 * MIB

let lab: Lab
beforeEach(async () => {
  lab = await Lab.make()
  lab.settings = { soloDelayMs: 300, frameLogBytes: 8 * MIB }
  await lab.start([1, 2].map((index) => ({ index, sizeBytes: SIZE, blank: true })))
  await lab.protect()
  for (const index of [1, 2]) {
    const client = await lab.a.connect(`pair-${index}`)
    for (let at = 0; at < SIZE; at += 4 * MIB) {
      await client.write(at, Buffer.alloc(MIB, index + at / MIB))
    }
    await client.flush()
    await client.disconnect()
  }
})
afterEach(async () => {
  await lab.end()
})

const rebuild = (site: Site, volume: string, name: string, force = false): Promise<unknown> =>
  site.command('volume.rebuild', {
    volume,
    session: lab.session,
    epoch: lab.record.epoch,
    rebuild: name,
    force,
  })

const codeOf = (attempt: Promise<unknown>): Promise<string> =>
  attempt.then(
    () => 'none',
    (error: unknown) => (error as { code: string }).code,
  )

test('a failed copy is rebuilt while clients write; the other members and the writer are left alone', async () => {
  await lab.b.kill()
  await writeFile(join(lab.b.directory, 'volumes', 'b-1', 'failed'), 'EIO in a test\n')
  await lab.b.start()
  await until('the copy counts no more', async () => (await lab.a.status()).state !== 'in_sync')
  const client = await lab.a.connect('pair-1')
  const load = new Load(client, 512, 4)
  load.start()
  assert.equal(await codeOf(rebuild(lab.a, 'a-1', 'r1')), 'WRONG_STATE')
  assert.equal(await codeOf(rebuild(lab.b, 'b-9', 'r1')), 'VOLUME_UNKNOWN')
  await rebuild(lab.b, 'b-1', 'r1')
  await lab.inSync()
  assert.ok((await load.stop()).count > 0)
  await client.disconnect()
  await until('both sides are equal', () => lab.same())
  // The same request again is the same rebuild.
  await rebuild(lab.b, 'b-1', 'r1')
  await lab.inSync()
  assert.equal(await codeOf(rebuild(lab.b, 'b-1', 'r2')), 'COPY_IS_GOOD')
})

test('a rebuild that a crash cut off is finished by the next start', async () => {
  await rebuild(lab.b, 'b-2', 'r1', true)
  await lab.inSync()
  await until('copied once', () => lab.same())
  await lab.b.kill()
  const path = join(lab.b.directory, 'sessions', lab.session, 'members.json')
  const { crc32c: _, ...file } = JSON.parse(await readFile(path, 'utf8')) as {
    crc32c: string
    members: { index: number; joined: boolean; rebuild?: { id: string; done: boolean } }[]
  }
  for (const member of file.members) {
    if (member.index !== 2) continue
    assert.deepEqual([member.rebuild?.id, member.rebuild?.done], ['r1', true])
    member.joined = false
    member.rebuild = { id: 'r2', done: false }
  }
  // As one without a checksum.
  await writeFile(path, JSON.stringify({ ...file, version: 1 }))
  await lab.b.start()
  await lab.inSync()
  await until('the member has joined again', async () => {
    const { members } = await lab.b.status()
    return members.every(({ joined }) => joined)
  })
  await until('copied again', () => lab.same())
})
