/** Power loss: whatever was not synced may be gone, torn, or there. What was promised has to be there. */
import assert from 'node:assert/strict'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { type DirDisk, openDirStore, systemDisk } from '#vault/dir/dir-store.ts'
import { openVault } from '#vault/vault.ts'
import {
  assertRestores,
  assertWhole,
  backUp,
  type BackedUp,
  changeBlocks,
  deps,
  makeImage,
  newVault,
  randomFrom,
  SECRET,
  withDirectory,
} from './vault-kit.ts'

const SEEDS = 25

/** Carries out everything, remembers what was synced, and at some call begins to refuse: that is when the power goes. */
class Outage extends Error {}

interface Content {
  bytes: Buffer
  synced: boolean
}

/** A name that appeared in a directory, or went. */
interface Step {
  readonly path: string
  readonly content: Content | 'directory' | 'gone'
  durable: boolean
}

function forgetfulDisk(root: string, callsUntilOutage: number) {
  let calls = 0
  const steps: Step[] = []
  const names = new Map<string, Content>()
  const tick = () => {
    if (++calls > callsUntilOutage) throw new Outage('the power is gone')
  }
  const disk: DirDisk = {
    async open(path, flags) {
      tick()
      const file = await systemDisk.open(path, flags)
      const content: Content = { bytes: Buffer.alloc(0), synced: false }
      names.set(path, content)
      return {
        async writev(pieces) {
          tick()
          await file.writev(pieces)
          content.bytes = Buffer.concat([content.bytes, ...pieces])
        },
        async datasync() {
          tick()
          await file.datasync()
          content.synced = true
        },
        close: () => file.close(),
      }
    },
    async link(from, to) {
      tick()
      await systemDisk.link(from, to)
      const content = names.get(from) as Content
      names.set(to, content)
      steps.push({ path: to, content, durable: false })
    },
    async rename(from, to) {
      tick()
      await systemDisk.rename(from, to)
      const content = names.get(from) as Content
      names.set(to, content)
      steps.push({ path: to, content, durable: false })
    },
    async unlink(path) {
      tick()
      await systemDisk.unlink(path)
      steps.push({ path, content: 'gone', durable: false })
    },
    async mkdir(path) {
      tick()
      await systemDisk.mkdir(path)
      steps.push({ path, content: 'directory', durable: false })
    },
    async syncDirectory(path) {
      tick()
      // What was done before the call; more may come while it runs.
      const before = steps.filter((step) => dirname(step.path) === path)
      await systemDisk.syncDirectory(path)
      for (const step of before) step.durable = true
    },
  }

  /** The directory as it may look afterwards. */
  async function afterOutage(target: string, random: () => number): Promise<void> {
    const files = new Map<string, Buffer>()
    const directories = new Set<string>([root])
    for (const { path, content, durable } of steps) {
      if (!durable && random() < 0.5) continue
      if (content === 'gone') files.delete(path)
      else if (content === 'directory') directories.add(path)
      else if (content.synced) files.set(path, content.bytes)
      else files.set(path, content.bytes.subarray(0, Math.floor(random() * content.bytes.length)))
    }
    for (const [path, bytes] of files) {
      if (!directories.has(dirname(path)) || path.startsWith(join(root, 'tmp'))) continue
      const to = join(target, path.slice(root.length))
      await mkdir(dirname(to), { recursive: true })
      await writeFile(to, bytes)
    }
  }
  return { disk, afterOutage, calls: () => calls }
}

async function work(directory: string, disk: DirDisk, seed: number) {
  const done: BackedUp[] = []
  const touched = new Set<string>()
  const random = randomFrom(seed)
  const store = await openDirStore(directory, { create: true, disk })
  try {
    const vault = await newVault(store)
    const image = makeImage(8 * 65_536, random)
    for (let i = 0; i < 4; i++) {
      changeBlocks(image, 0.5, random)
      const parent = done.at(-1)?.id
      done.push(
        await backUp(vault, image, {
          packBytes: 100_000,
          ...(parent === undefined ? {} : { parent }),
        }),
      )
      if (i === 2) {
        const victim = done[0] as BackedUp
        touched.add(victim.id)
        await vault.forget(victim.id)
        await vault.collect({ graceMs: 0, usedMin: 0.95 })
      }
    }
  } catch (error) {
    if (!isOutage(error)) throw error
  }
  return { done, touched }
}

const isOutage = (error: unknown): boolean =>
  error instanceof Outage || (error instanceof Error && isOutage(error.cause))

test('after a power loss at any moment, every committed checkpoint is there and whole', () =>
  withDirectory(async (parent) => {
    // How many calls the whole story takes.
    const whole = join(parent, 'whole')
    const measured = forgetfulDisk(whole, Number.POSITIVE_INFINITY)
    await work(whole, measured.disk, 1)
    for (let seed = 1; seed <= SEEDS; seed++) {
      const random = randomFrom(1000 + seed)
      const root = join(parent, `r${seed}`)
      const target = join(parent, `after${seed}`)
      const lossy = forgetfulDisk(root, Math.floor(random() * measured.calls()))
      const { done, touched } = await work(root, lossy.disk, seed)
      await mkdir(target, { recursive: true })
      await lossy.afterOutage(target, random)
      if (done.length === 0) continue
      const vault = await openVault(deps(await openDirStore(target)), SECRET)
      const listed = new Set((await vault.checkpoints()).map(({ id }) => id))
      for (const one of done) {
        if (touched.has(one.id) && !listed.has(one.id)) continue
        assert.ok(listed.has(one.id), `seed ${seed}: checkpoint ${one.id} is there`)
        await assertRestores(vault, one)
      }
      await assertWhole(vault)
      // And the vault goes on working.
      await vault.collect({ graceMs: 0, leaseExpiryMs: 0, usedMin: 0.95 })
      const more = await backUp(vault, makeImage(5 * 65_536, random))
      await assertRestores(vault, more)
      await assertWhole(vault)
    }
  }))

test('a disk that forgets what was not synced does lose it: the test can fail', () =>
  withDirectory(async (parent) => {
    const root = join(parent, 'root')
    const { disk, afterOutage } = forgetfulDisk(root, Number.POSITIVE_INFINITY)
    const store = await openDirStore(root, {
      create: true,
      disk: { ...disk, syncDirectory: async () => undefined },
    })
    await store.put('packs/aa/x', Buffer.from('x'))
    await mkdir(join(parent, 'after'))
    await afterOutage(join(parent, 'after'), () => 0)
    await assert.rejects(readFile(join(parent, 'after/packs/aa/x')))
  }))
