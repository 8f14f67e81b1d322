import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, test } from 'node:test'
import { createLog } from '#base/log.ts'
import { ExportTable } from '#agent/nbd/exports.ts'
import { type CheckpointExports, openCheckpointExports } from './checkpoint-exports.ts'
import type { RegionVault } from './region-vault.ts'

const manifest = { volumes: [{ id: 'v', sizeBytes: 65_536 }] }
const vault = {
  open: async () => ({ checkpoint: async () => ({ manifest }) }),
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

test('a list that cannot be read attaches nothing, and the agent starts', async () => {
  await writeFile(file, '[{"checkpoint":"')
  await start()
  const id = randomUUID()
  assert.equal(isOpen(id), false)
  await attached.attach(id, 'me')
  await start()
  assert.equal(isOpen(id), true)
})
