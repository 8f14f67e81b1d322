import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, test, type TestContext } from 'node:test'
import type { Volume } from '#agent/volumes/volume.ts'
import type { VolumeRecord, VolumeStore } from '#agent/volumes/volume-store.ts'
import { BLOCK_BYTES } from '#wire/link/frame.ts'
import { REGION_BYTES } from './copy/regions.ts'
import { MemoryVolume } from './data-path.test-kit.ts'
import { Members } from './members.ts'
import { type MembersFile, NO_MEMBERS, readMembers } from './members-file.ts'

const SIZE = 2 * REGION_BYTES

/** The volumes of one site, in memory. */
class Site {
  readonly directory: string
  readonly volumes = new Map<string, MemoryVolume>()
  /** What was asked of the volumes, in order. */
  readonly calls: string[] = []
  /** The disk fails before this is done. */
  failing: string | null = null
  onExtend: () => void = () => undefined

  constructor(t: TestContext) {
    this.directory = mkdtempSync(join(tmpdir(), 'holdfast-members-'))
    t.after(() => rmSync(this.directory, { recursive: true }))
    for (const id of ['v-1', 'v-2']) this.volumes.set(id, new MemoryVolume(SIZE))
  }

  #did(call: string): void {
    this.calls.push(call)
    if (call === this.failing) throw new Error(`${call} failed`)
  }

  get #store(): VolumeStore {
    return {
      record: (id: string) => {
        const found = this.volumes.get(id)
        const serving = { mode: 'standalone' }
        return found && ({ sizeBytes: found.sizeBytes, serving, owner: '' } as VolumeRecord)
      },
      open: async (id: string) => this.volumes.get(id) as unknown as Volume,
      setServing: async () => undefined,
      extend: async (id: string, sizeBytes: number) => {
        this.onExtend()
        ;(this.volumes.get(id) as MemoryVolume).sizeBytes = sizeBytes
      },
      delete: async (id: string) => {
        this.#did(`delete ${id}`)
        this.volumes.delete(id)
      },
      create: async (id: string, sizeBytes: number) => {
        this.#did(`create ${id}`)
        this.volumes.set(id, new MemoryVolume(sizeBytes))
      },
    } as unknown as VolumeStore
  }

  /** As a process finds it. */
  async members(): Promise<Members> {
    const found = await readMembers(this.directory)
    assert.ok(found !== 'damaged')
    const members = new Members({
      session: 's',
      site: 'az2',
      volumes: this.#store,
      directory: this.directory,
      bootId: 'boot',
      found: found ?? NO_MEMBERS,
    })
    await members.openAll()
    return members
  }

  async taken(asWriter = false): Promise<Members> {
    const members = await this.members()
    await take(members, SIZE, asWriter)
    return members
  }

  async file(): Promise<MembersFile> {
    const found = await readMembers(this.directory)
    assert.ok(found !== null && found !== 'damaged')
    return found
  }
}

const take = (members: Members, sizeBytes: number, asWriter = false): Promise<boolean> =>
  members.take({
    members: [1, 2].map((index) => ({
      index,
      pair: `p-${index}`,
      size_bytes: sizeBytes,
      replica_blank: false,
      volumes: { az1: `w-${index}`, az2: `v-${index}` },
    })),
    peerLink: '',
    asWriter,
    left: new Set(),
    onAdded: async () => undefined,
  })

describe('the members of a session', () => {
  test('are flushed all of them, and one that fails is told when all have ended', async (t) => {
    const site = new Site(t)
    const members = await site.taken()
    await members.flush()
    const syncs = () => [...site.volumes.values()].map((volume) => volume.syncs)
    assert.deepEqual(syncs(), [1, 1])
    assert.equal(await members.flushOrNot(), true)
    for (const volume of site.volumes.values()) {
      volume.syncFault = Object.assign(new Error('EIO')) as never
      assert.equal(await members.flushOrNot(), false)
      await assert.rejects(members.flush())
      volume.syncFault = undefined
    }
    assert.deepEqual(syncs(), [6, 6])
    await members.closeFiles()
  })

  test('have a copy from the beginning at the writer, and at the replica once it is there', async (t) => {
    for (const asWriter of [true, false]) {
      const site = new Site(t)
      const members = await site.taken(asWriter)
      assert.equal(members.allJoined, asWriter)
      await members.markJoined([2])
      assert.deepEqual(
        (await site.file()).members.map(({ joined }) => joined),
        [asWriter, true],
      )
      await members.closeFiles()
    }
  })

  test('whose maps are gone at a start may differ everywhere', async (t) => {
    const site = new Site(t)
    const first = await site.taken()
    assert.equal(first.dirtyRegions, 0)
    await first.closeFiles()
    rmSync(join(site.directory, 'intent-1'))
    rmSync(join(site.directory, 'changes-1'))
    const members = await site.members()
    assert.deepEqual(
      [1, 2].map((index) => [
        members.get(index)?.intent.count,
        members.get(index)?.changes.trust(0),
      ]),
      [
        [2, 'damaged'],
        [0, 'exact'],
      ],
    )
    await members.closeFiles()
  })

  test('that grow can be marked in their new part before anybody can write there', async (t) => {
    const site = new Site(t)
    const members = await site.taken()
    let looked = 0
    site.onExtend = () => {
      looked++
      const { intent, changes } = [...members.values()][looked - 1] ?? assert.fail()
      assert.equal(intent.regions, 3)
      changes.mark(SIZE, BLOCK_BYTES)
    }
    assert.equal(await take(members, SIZE + BLOCK_BYTES), true)
    assert.equal(looked, 2)
    await members.closeFiles()
  })

  test('that were removed are known for ever, and do not come back under their index', async (t) => {
    const site = new Site(t)
    const members = await site.taken()
    const first = members.get(1) ?? assert.fail()
    await members.forget(1)
    await members.dropMaps(first)
    await members.closeFiles()
    const later = await site.members()
    assert.deepEqual([later.wasRemoved(1), later.indexes], [true, [2]])
    await assert.rejects(take(later, SIZE))
    await later.closeFiles()
  })

  for (const failing of ['delete v-1', 'create v-1']) {
    test(`one that is rebuilt has no copy before its old one goes, and a start goes on with it: ${failing}`, async (t) => {
      const site = new Site(t)
      const members = await site.taken()
      await members.markJoined([1, 2])
      members.get(1)?.intent.set(0, 1)
      await members.get(1)?.intent.save()
      members.get(1)?.changes.mark(0, 1)
      site.failing = failing
      await assert.rejects(members.rebuild(1, 'r-1'))
      const [stored] = (await site.file()).members
      assert.deepEqual([stored?.joined, stored?.rebuild?.done], [false, false])
      site.failing = null
      await members.closeFiles()
      const later = await site.members()
      const rebuilt = later.get(1) ?? assert.fail()
      assert.equal(site.calls.at(-1), 'create v-1')
      assert.deepEqual(
        [rebuilt.stored.joined, rebuilt.stored.rebuild?.done, rebuilt.intent.count],
        [false, true, 0],
      )
      assert.equal(rebuilt.changes.has(0), false)
      await later.closeFiles()
    })
  }
})
