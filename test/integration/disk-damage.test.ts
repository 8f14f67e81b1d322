/** Damaged state files between the end and the start of an agent, in a session that is in sync and under load: two site processes. */
import assert from 'node:assert/strict'
import { existsSync, readdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import type { NbdClient } from '#client/nbd/client.ts'
import { Lab, type Site } from './replication-lab/lab.ts'
import { until } from '../support/until.ts'
import { Load, LOAD_BLOCK, lost } from './replication-lab/load.ts'

const SIZE = 16 * 1024 * 1024
const SLOT = 4096

interface Damage {
  readonly what: string
  /** `folder`: of the session. Returns false where there is no such file to damage. */
  readonly of: (folder: string) => boolean
  /** The state is set aside, and the control plane has to open the session again. */
  readonly setAside?: boolean
}

/** Changes the bytes of a file in place. */
function edit(path: string, change: (bytes: Buffer) => void): boolean {
  if (!existsSync(path)) return false
  const bytes = readFileSync(path)
  change(bytes)
  writeFileSync(path, bytes)
  return true
}

/** Offset of the slot with the higher generation. */
const newest = (bytes: Buffer): number =>
  bytes.readBigUInt64BE(8) > bytes.readBigUInt64BE(SLOT + 8) ? 0 : SLOT

const torn = (bytes: Buffer, at: number, length: number): void =>
  void bytes.fill(0, at + length / 2, at + length)

const files = (folder: string, prefix: string): string[] =>
  readdirSync(folder)
    .filter((name) => name.startsWith(prefix))
    .map((name) => join(folder, name))

const each = (folder: string, prefix: string, change: (bytes: Buffer) => void): boolean =>
  files(folder, prefix)
    .map((path) => edit(path, change))
    .includes(true)

const DAMAGES: readonly Damage[] = [
  {
    what: 'a torn newest slot of the epoch file',
    of: (folder) => edit(join(folder, 'epoch'), (bytes) => torn(bytes, newest(bytes), 128)),
  },
  {
    what: 'a flipped bit in the newest slot of the epoch file',
    of: (folder) =>
      edit(join(folder, 'epoch'), (bytes) => {
        const at = newest(bytes) + 40
        bytes.writeUInt8(bytes.readUInt8(at) ^ 4, at)
      }),
  },
  {
    what: 'the older slot of the epoch file zeroed',
    of: (folder) =>
      edit(join(folder, 'epoch'), (bytes) => {
        const at = SLOT - newest(bytes)
        bytes.fill(0, at, at + SLOT)
      }),
    // Nobody knows that it was the older one.
    setAside: true,
  },
  {
    what: 'both slots of the epoch file damaged',
    of: (folder) => edit(join(folder, 'epoch'), (bytes) => void bytes.fill(0xa5)),
    setAside: true,
  },
  {
    what: 'members.json cut in the middle',
    of: (folder) => {
      const path = join(folder, 'members.json')
      truncateSync(path, Math.floor(readFileSync(path).length / 2))
      return true
    },
    setAside: true,
  },
  {
    what: 'the head of the run file damaged',
    of: (folder) => edit(join(folder, 'run'), (bytes) => void bytes.fill(0xff, 8, 24)),
  },
  {
    what: 'a run file whose number is none',
    of: (folder) => edit(join(folder, 'run'), (bytes) => void bytes.fill(0xff, 64, 72)),
  },
  {
    what: 'a run file of length zero',
    of: (folder) => {
      truncateSync(join(folder, 'run'), 0)
      return true
    },
  },
  {
    what: 'a torn page of the intent bitmap',
    of: (folder) =>
      each(folder, 'intent-', (bytes) => torn(bytes, 0, Math.min(SLOT, bytes.length))),
  },
  {
    what: 'an intent bitmap full of garbage',
    of: (folder) => each(folder, 'intent-', (bytes) => void bytes.fill(0x5a)),
  },
  {
    what: 'a change map full of garbage',
    of: (folder) => each(folder, 'changes-', (bytes) => void bytes.fill(0x5a)),
  },
]

describe('state files damaged while the agent was down', () => {
  let lab: Lab
  let number = 1
  before(async () => {
    lab = await Lab.make()
    await lab.start([{ index: 1, sizeBytes: SIZE, blank: true }])
    await lab.protect()
  })
  after(() => lab.end())

  /** Under load, `site` dies, its state is damaged, and it comes back. */
  async function survive(site: Site, damage: Damage): Promise<void> {
    // A writer that was started again is in step a moment before its exports serve.
    const client: NbdClient = await until('the writer serves', () =>
      lab.a.connect('pair-1').catch(() => undefined),
    )
    const load = new Load(client, SIZE / LOAD_BLOCK, 4, number)
    load.start()
    await until('the load runs', () => load.result.count > 50)
    await client.flush()
    await site.kill()
    const folder = join(site.directory, 'sessions', lab.session)
    assert.ok(damage.of(folder), 'there was something to damage')
    await site.start()
    if (damage.setAside === true) {
      const { epoch, state } = await site.status()
      assert.deepEqual([epoch, state], [0, 'closed'], 'nothing of it is believed any more')
      const aside = readdirSync(join(site.directory, 'sessions'))
      assert.ok(aside.some((name) => name.startsWith(`${lab.session}.damaged-`)))
      await assert.rejects(site.connect('pair-1'), 'nothing is served meanwhile')
      await lab.open(site)
    }
    await lab.inSync()
    const result = await load.stop()
    client.destroy()
    number = load.next
    await until('both sides are equal', () => lab.same())
    assert.deepEqual(lost(lab.a.data('a-1'), result), [])
    assert.deepEqual(lost(lab.b.data('b-1'), result), [])
  }

  for (const damage of DAMAGES) {
    test(`${damage.what}: at the replica`, () => survive(lab.b, damage))
    test(`${damage.what}: at the writer`, () => survive(lab.a, damage))
  }
})
