import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, test } from 'node:test'
import { isFault } from '#base/fault.ts'
import { createLog } from '#base/log.ts'
import { Io, IO_ERRORS } from '#agent/nbd/device.ts'
import { ExportTable } from '#agent/nbd/exports.ts'
import { SlabPool } from '#agent/nbd/slab.ts'
import { type CheckpointExports, openCheckpointExports } from './checkpoint-exports.ts'
import { ATTACHMENT_ENDED } from './faults.ts'
import type { RegionVault } from './region-vault.ts'

const manifest = { volumes: [{ id: 'v', sizeBytes: 65_536 }] }
let away = false
const vault = {
  async open() {
    if (away) throw new Error('the store does not answer')
    const read = async (_volume: string, _offset: number, length: number) => Buffer.alloc(length, 7)
    return { checkpoint: async () => ({ manifest, read }) }
  },
} as unknown as RegionVault

let directory = ''
let file = ''
let exports: ExportTable
let attached: CheckpointExports

async function start(): Promise<void> {
  exports = new ExportTable()
  attached = await openCheckpointExports({ file, vault, exports, log: createLog('test', 'silent') })
}
const nameOf = (checkpoint: string) => `checkpoint/${checkpoint}/v`
const isOpen = (checkpoint: string) => !('refusal' in exports.open(nameOf(checkpoint)))

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'holdfast-attached-'))
  file = join(directory, 'attached.json')
  await start()
})
afterEach(() => rm(directory, { recursive: true, force: true }))

test('what was attached and detached by many at once is so after a restart', async () => {
  const ids = Array.from({ length: 24 }, () => randomUUID())
  await Promise.all(ids.map((id) => attached.attach(id, 'me')))
  const [gone, left] = [ids.slice(0, 12), ids.slice(12)]
  await Promise.all(gone.map((id) => attached.detach(id)))
  for (const again of [false, true]) {
    if (again) await start()
    assert.deepEqual(
      left.map(isOpen),
      left.map(() => true),
    )
    assert.deepEqual(
      gone.map(isOpen),
      gone.map(() => false),
    )
  }
})

test('the end of an attachment that was given up takes nothing from the one that came after it, whichever is heard first', async () => {
  const id = randomUUID()
  const [first, second, third] = [randomUUID(), randomUUID(), randomUUID()]
  // Its answer was lost; the next one is made before its end is heard.
  await attached.attach(id, 'me', first)
  await attached.attach(id, 'me', second)
  await start()
  await attached.detach(id, first)
  await attached.detach(id, first)
  assert.equal(isOpen(id), true)
  await start()
  await attached.detach(id, second)
  assert.equal(isOpen(id), false)
  // It comes about after its end was heard: a store that took its time.
  await assert.rejects(attached.attach(id, 'me', second), (error) =>
    isFault(error, ATTACHMENT_ENDED),
  )
  assert.equal(isOpen(id), false)
  await attached.attach(id, 'me', third)
  await attached.detach(id, second)
  assert.equal(isOpen(id), true)
  await attached.detach(id)
  assert.equal(isOpen(id), false)
})

test('what an older release noted is ended by whoever detaches it', async () => {
  const id = randomUUID()
  const volumes = [{ id: 'v', sizeBytes: 65_536 }]
  await writeFile(file, JSON.stringify([{ checkpoint: id, owner: 'me', volumes }]))
  await start()
  assert.equal(isOpen(id), true)
  await attached.detach(id, randomUUID())
  assert.equal(isOpen(id), false)
})

test('what could not be noted is still attached, and is detached when it is asked for again', async () => {
  const id = randomUUID()
  await attached.attach(id, 'me')
  await rm(directory, { recursive: true })
  await assert.rejects(attached.detach(id), { code: 'ENOENT' })
  assert.equal(isOpen(id), true)
  await mkdir(directory)
  await attached.detach(id)
  assert.equal(isOpen(id), false)
})

test('a store that did not answer the first request is asked again by the next one', async () => {
  const id = randomUUID()
  await attached.attach(id, 'me')
  const opened = exports.open(nameOf(id))
  assert.ok(!('refusal' in opened))
  const slab = new SlabPool({ slabBytes: 4096, idleCountMax: 1 }).take()
  const read = () =>
    new Promise<number>((resolve) => {
      const io = new Io({ done: (_io, error) => resolve(error) })
      Object.assign(io, { kind: 'read', offset: 0, length: 512, slab, at: 0 })
      io.arm()
      opened.device.submit([io], 1)
    })
  away = true
  assert.equal(await read(), IO_ERRORS.EIO)
  away = false
  assert.equal(await read(), IO_ERRORS.ok)
  assert.equal(slab.bytes[511], 7)
})

test('a list that cannot be read attaches nothing, and the agent starts', async () => {
  await writeFile(file, '[{"checkpoint":"')
  await start()
  const id = randomUUID()
  assert.equal(isOpen(id), false)
  await attached.attach(id, 'me')
  await start()
  assert.equal(isOpen(id), true)
})
