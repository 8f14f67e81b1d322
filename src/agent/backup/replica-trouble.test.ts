/** Replicas that their destination cannot take for a while: its vault is full or refuses, or its key is another one. Both ends and the line are real. */
import assert from 'node:assert/strict'
import { randomBytes, randomUUID } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import type { Clock } from '#base/clock.ts'
import { Fault } from '#base/fault.ts'
import { createLog } from '#base/log.ts'
import { systemClock } from '#base/system/clock.ts'
import { createAuthority, issueCertificate } from '#base/system/pki.ts'
import { type DirDisk, openDirStore, systemDisk } from '#vault/dir/dir-store.ts'
import { VAULT_STORE_REFUSED } from '#vault/faults.ts'
import { type ObjectStore, totalBytes } from '#vault/object-store.ts'
import { initVault, openVault, type Vault } from '#vault/vault.ts'
import type { ReplicaInfo } from '#wire/site/backups.ts'
import { repeated, restoredImage } from './backups.contract.ts'
import { openReplicaDoor, type ReplicaDoor } from './replica-door.ts'
import { openReplicas, replicaInfo, type Replicas } from './replicas.ts'

const MIB = 1024 * 1024
const IMAGE_BYTES = 32 * MIB
const log = createLog('test', process.env['LOG_LEVEL'] ?? 'silent')
const image = randomBytes(IMAGE_BYTES)

/** Waits pass at once, and are told to whoever waits for so many of them. */
const hurried = { ms: 0, waits: 0, waited: (): void => undefined }
const hurriedClock: Clock = {
  wallMs: () => systemClock.wallMs(),
  bootMs: () => hurried.ms,
  after(delayMs, fire) {
    hurried.ms += delayMs
    hurried.waits++
    hurried.waited()
    const handle = setImmediate(fire)
    return () => clearImmediate(handle)
  },
}
async function waits(count: number): Promise<void> {
  const enough = hurried.waits + count
  await new Promise<void>((resolve) => {
    hurried.waited = () => void (hurried.waits >= enough && resolve())
  })
}

const noSpace = () =>
  Object.assign(new Error('ENOSPC: no space left on device, write'), { code: 'ENOSPC' })
/** As a bucket with a quota says it. */
const refused = () => new Fault(VAULT_STORE_REFUSED, 'storing: QuotaExceeded')

/** A disk of so many bytes. */
class SmallDisk implements DirDisk {
  bytesMax = Number.POSITIVE_INFINITY
  full: () => Error = noSpace
  #used = 0
  readonly #sizes = new Map<string, number>()
  readonly #linked = new Set<string>()

  leave(bytes: number): void {
    this.bytesMax = this.#used + bytes
  }
  async open(path: string, flags: string) {
    const file = await systemDisk.open(path, flags)
    return {
      ...file,
      // No power is lost here.
      datasync: async () => undefined,
      writev: async (pieces: readonly Uint8Array[]) => {
        const bytes = totalBytes(pieces)
        if (this.#used + bytes > this.bytesMax) throw this.full()
        this.#used += bytes
        this.#sizes.set(path, bytes)
        await file.writev(pieces)
      },
    }
  }
  async link(from: string, to: string) {
    await systemDisk.link(from, to)
    this.#sizes.set(to, this.#sizes.get(from) ?? 0)
    this.#linked.add(from)
  }
  async rename(from: string, to: string) {
    await systemDisk.rename(from, to)
    this.#used -= this.#sizes.get(to) ?? 0
    this.#sizes.set(to, this.#sizes.get(from) ?? 0)
    this.#sizes.delete(from)
  }
  async unlink(path: string) {
    await systemDisk.unlink(path)
    if (!this.#linked.delete(path)) this.#used -= this.#sizes.get(path) ?? 0
    this.#sizes.delete(path)
  }
  mkdir(path: string) {
    return systemDisk.mkdir(path)
  }
  async syncDirectory() {}
}

let directory = ''
let tls: { ca: string; cert: string; key: string }
let source: Vault
let checkpoint = ''
let replicas: Replicas

before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'holdfast-trouble-'))
  const nowMs = systemClock.wallMs()
  const authority = await createAuthority('test', nowMs)
  const identity = { kind: 'agent', site: 'az1', agent: 'az1-agent' } as const
  const to = { identity, hosts: ['127.0.0.1'], lifetimeDays: 2 }
  tls = { ca: authority.cert, ...(await issueCertificate(authority, to, nowMs)) }
  source = await newVault(await openDirStore(join(directory, 'source'), { create: true }))
  const session = await source.begin({ threads: 1 })
  const volume = await session.openVolume({ id: 'data', sizeBytes: IMAGE_BYTES })
  await volume.write(0, image)
  await volume.finish()
  checkpoint = (await session.commit()).id
  replicas = await openReplicas({
    directory: join(directory, 'replicas'),
    vault: { open: async () => source, close: () => undefined },
    clock: hurriedClock,
    log,
  })
})
after(async () => {
  await replicas.works.close()
  await rm(directory, { recursive: true, force: true })
})

const KEY = randomBytes(32)
const secretOf = (content: Buffer) => ({ kind: 'key-file', content }) as const
const newVault = (store: ObjectStore): Promise<Vault> =>
  initVault({ store, clock: systemClock }, secretOf(KEY))

/** The other region: a vault of its own on a disk of its own, and the door to it. */
class Destination {
  readonly disk = new SmallDisk()
  readonly replica = randomUUID()
  keyFile = KEY
  store!: ObjectStore
  #door!: ReplicaDoor

  static async open(): Promise<Destination> {
    const one = new Destination()
    const root = join(directory, one.replica)
    one.store = await openDirStore(join(root, 'vault'), { create: true, disk: one.disk })
    await newVault(one.store)
    one.#door = await openReplicaDoor({
      directory: join(root, 'incoming'),
      vault: { open: () => one.vault(), close: () => undefined },
      listen: { host: '127.0.0.1', port: 0 },
      advertiseHost: '127.0.0.1',
      tls,
      clock: systemClock,
      log,
    })
    return one
  }

  vault(): Promise<Vault> {
    return openVault({ store: this.store, clock: systemClock }, secretOf(this.keyFile))
  }

  close(): Promise<void> {
    return this.#door.close()
  }

  /** With another ticket each time, as a control plane does. */
  async start(): Promise<void> {
    const { target } = await this.#door.admit({ replica: this.replica, labels: { owner: 'them' } })
    const request = { replica: this.replica, checkpoint, target, accelerate: false, rate_bytes: 0 }
    await replicas.start(request)
  }

  shown(): ReplicaInfo {
    return replicaInfo(replicas.works.show(this.replica), hurriedClock)
  }

  ended(): Promise<ReplicaInfo> {
    return repeated(async () => this.shown())
  }

  /** All of it is here, and hardly anything was sent twice. */
  async assertArrived(): Promise<void> {
    const info = await this.ended()
    assert.equal(info.state, 'done', info.reason ?? '')
    assert.deepEqual([info.code, info.reason], [null, null])
    assert.ok(info.missing_bytes >= IMAGE_BYTES, `${info.missing_bytes} were missing`)
    const share = info.sent_bytes / info.missing_bytes
    assert.ok(share <= 1.05, `${info.sent_bytes} sent, ${info.missing_bytes} missing`)
    const restored = await restoredImage(await this.vault(), info.checkpoint ?? '', 'data')
    assert.ok(restored.equals(image))
  }
}

async function objectsOf(vault: Vault): Promise<string[]> {
  const found: string[] = []
  for await (const { key, modifiedMs } of vault.store.list('')) found.push(`${key} ${modifiedMs}`)
  return found.toSorted()
}

async function withDestination(act: (there: Destination) => Promise<void>): Promise<void> {
  const before = await objectsOf(source)
  const there = await Destination.open()
  try {
    await act(there)
  } finally {
    await there.close()
  }
  assert.deepEqual(await objectsOf(source), before, 'the source is as it was')
}

test('a vault that refuses to take more for a while delays the replica, and little is sent twice', () =>
  withDestination(async (there) => {
    there.disk.full = refused
    there.disk.leave(10 * MIB + 300_000)
    await there.start()
    await waits(8)
    assert.equal(there.shown().state, 'running')
    there.disk.leave(Number.POSITIVE_INFINITY)
    await there.assertArrived()
    assert.deepEqual((await (await there.vault()).verify({ data: true })).damage, [])
  }))

test('a vault that is full for long fails the replica, which says so and goes on later where it was', () =>
  withDestination(async (there) => {
    there.disk.leave(8 * MIB + 300_000)
    await there.start()
    const failed = await there.ended()
    assert.deepEqual([failed.state, failed.code], ['failed', 'REPLICA_VAULT_FAILED'])
    assert.match(failed.reason ?? '', /VAULT_STORE_FAILED: .*ENOSPC/)
    assert.equal(failed.checkpoint, null)
    assert.ok(failed.missing_bytes >= 7 * MIB, `${failed.missing_bytes} have arrived`)
    assert.deepEqual(await (await there.vault()).checkpointIds(), [])
    there.disk.leave(Number.POSITIVE_INFINITY)
    await there.start()
    await there.assertArrived()
  }))

test('a vault whose key file is another one is told at once, and with the right one the replica goes on where it was', () =>
  withDestination(async (there) => {
    there.disk.leave(8 * MIB)
    await there.start()
    await waits(1)
    there.keyFile = randomBytes(32)
    there.disk.leave(Number.POSITIVE_INFINITY)
    const failed = await there.ended()
    assert.deepEqual([failed.state, failed.code], ['failed', 'REPLICA_VAULT_FAILED'])
    assert.match(failed.reason ?? '', /VAULT_KEY_WRONG/)
    there.keyFile = KEY
    await there.start()
    await there.assertArrived()
  }))

test('a vault that has another key under the name of ours refuses the replica before anything is sent', () =>
  withDestination(async (there) => {
    const foreign = source.dataKeys().map((key) => ({ ...key, secret: randomBytes(32) }))
    await (await there.vault()).adoptDataKeys(foreign)
    await there.start()
    const failed = await there.ended()
    assert.deepEqual(
      [failed.state, failed.code, failed.sent_bytes],
      ['failed', 'TRANSFER_REFUSED', 0],
    )
    assert.match(failed.reason ?? '', /KEY_REFUSED/)
  }))
