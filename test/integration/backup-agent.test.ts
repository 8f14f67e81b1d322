/** Backups, restores and replicas of an agent in processes that are killed, over lines that are cut, and from vaults that are damaged. */
import assert from 'node:assert/strict'
import { createHash, randomUUID } from 'node:crypto'
import { mkdir, mkdtemp, open, readdir, rename, rm, stat, writeFile } from 'node:fs/promises'
import { createServer, type Server, type Socket, connect as dial } from 'node:net'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { restoredImage } from '#agent/backup/backups.contract.ts'
import { systemClock } from '#base/system/clock.ts'
import { createAuthority, issueCertificate } from '#base/system/pki.ts'
import { connectNbd } from '#client/nbd/client.ts'
import type { BackupInfo } from '#wire/site/backups.ts'
import { imageOf, PIECE_BYTES, RANDOM_BYTES } from './backup-lab/content.ts'
import { Refused, SiteProcess } from './backup-lab/site-process.ts'

const MIB = 1024 * 1024
/** Of the volume `data`, in pieces of 64 KiB. Its last pieces are a hole. */
const PIECES = 640
const HOLE = 40
const SIZE = PIECES * PIECE_BYTES

const digestOf = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex')
const filled = (seed: number): (number | undefined)[] =>
  Array.from({ length: PIECES }, (_, i) => (i < PIECES - HOLE ? seed : undefined))

const backupOf = (parent: string | null, more: object = {}) => ({
  backup: randomUUID(),
  volumes: ['data'],
  names: ['data'],
  parent,
  labels: { server: 'db1' },
  rate_bytes: 0,
  ...more,
})

const refusedWith = (code: string) => (error: unknown) =>
  error instanceof Refused && error.code === code

let directory = ''
let source: SiteProcess
let first: BackupInfo
const seeds = filled(1)

before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'holdfast-agent-backup-'))
  await makePki(join(directory, 'pki'))
  source = new SiteProcess(join(directory, 'source'), join(directory, 'pki'))
  await source.start()
  await source.ask('lab.volume', { volume: 'data', size: SIZE })
  await source.ask('lab.fill', { volume: 'data', from: 0, to: PIECES - HOLE, seed: 1 })
})
after(async () => {
  await source.kill()
  await rm(directory, { recursive: true, force: true })
})

async function makePki(to: string): Promise<void> {
  await mkdir(to, { recursive: true })
  const nowMs = systemClock.wallMs()
  const authority = await createAuthority('test', nowMs)
  const identity = { kind: 'agent', site: 'az1', agent: 'az1-agent' } as const
  const part = await issueCertificate(
    authority,
    { identity, hosts: ['127.0.0.1'], lifetimeDays: 2 },
    nowMs,
  )
  await writeFile(join(to, 'ca.pem'), authority.cert)
  await writeFile(join(to, 'part.pem'), part.cert)
  await writeFile(join(to, 'part.key'), part.key)
}

async function assertHolds(site: SiteProcess, checkpoint: string, image: Buffer): Promise<void> {
  const found = await restoredImage(await site.vault(), checkpoint, 'data')
  assert.ok(found.equals(image), 'the checkpoint holds what the volume held')
}

describe('backups', () => {
  test('a killed agent goes on with its backup, which shows the moment before', async () => {
    const request = backupOf(null, { rate_bytes: 16 * MIB })
    await source.until('backup.start', request, (info) => info.read_bytes > 25 * MIB)
    // Not of the moment any more.
    await source.ask('lab.fill', { volume: 'data', from: 100, to: 110, seed: 2 })
    await source.kill()
    const durable = await bytesOfPacks()
    await source.start()
    const info = await source.ended('backup.start', request)
    assert.equal(info.state, 'done', info.reason ?? '')
    assert.equal(info.manner, 'full')
    assert.equal(info.total_bytes, SIZE)
    assert.ok(info.read_bytes <= SIZE - HOLE * PIECE_BYTES, 'the hole was not read')
    assert.ok((info.taken_at ?? 0) > 0)
    await assertHolds(source, info.checkpoint ?? '', imageOf(seeds))
    const { manifest } = await (await source.vault()).checkpoint(info.checkpoint ?? '')
    assert.deepEqual(manifest.labels, { server: 'db1', owner: 'me' })
    assert.equal(manifest.createdMs, info.taken_at)
    seeds.fill(2, 100, 110)
    first = info
    // What the killed one had stored as a whole was used by the one that went on.
    const all = (PIECES - HOLE) * RANDOM_BYTES
    // On a busy machine the killed one may have been through with it.
    assert.ok(
      manifest.storedBytes < all * 1.05 - durable || durable >= all,
      `${manifest.storedBytes} of about ${all}, ${durable} were there`,
    )
  })

  test('the same request again tells what became of it, another name of work is unknown', async () => {
    const again = await source.command('backup.show', { backup: first.backup })
    assert.deepEqual(again, first)
    await assert.rejects(source.command('backup.show', { backup: randomUUID() }), (error) =>
      refusedWith('WORK_UNKNOWN')(error),
    )
  })

  test('after the crash the parent is compared with, and then only changes are read', async () => {
    const scan = await source.ended('backup.start', backupOf(first.checkpoint))
    assert.equal(scan.manner, 'scan')
    await source.ask('lab.fill', { volume: 'data', from: 7, to: 9, seed: 3 })
    seeds.fill(3, 7, 9)
    const changes = await source.ended('backup.start', backupOf(scan.checkpoint))
    assert.equal(changes.manner, 'changes')
    assert.equal(changes.read_bytes, 3 * PIECE_BYTES)
    await assertHolds(source, changes.checkpoint ?? '', imageOf(seeds))
    first = changes
  })

  test('a killed increment goes on with what it knew had changed', async () => {
    await source.ask('lab.fill', { volume: 'data', from: 200, to: 500, seed: 4 })
    seeds.fill(4, 200, 500)
    const request = backupOf(first.checkpoint, { rate_bytes: 24 * MIB })
    await source.until('backup.start', request, (info) => info.read_bytes > 3 * MIB)
    await source.kill()
    await source.start()
    const info = await source.ended('backup.start', request)
    assert.equal(info.state, 'done', info.reason ?? '')
    assert.equal(info.manner, 'changes')
    await assertHolds(source, info.checkpoint ?? '', imageOf(seeds))
    first = info
  })

  test('a cancelled backup leaves no snapshot and no checkpoint', async () => {
    const request = backupOf(null, { rate_bytes: 4 * MIB })
    await source.until('backup.start', request, (info) => info.taken_at !== null)
    const cancelled = await source.command('backup.cancel', { backup: request.backup })
    assert.equal(cancelled.state, 'cancelled')
    assert.equal(cancelled.checkpoint, null)
    assert.deepEqual((await readdir(join(source.directory, 'snapshots'))).filter(isId), [])
  })

  test('what cannot be backed up is refused by name', async () => {
    const unknown = { ...backupOf(null), volumes: ['nothing'], names: ['nothing'] }
    await assert.rejects(source.command('backup.start', unknown), refusedWith('VOLUME_UNKNOWN'))
    const twice = { ...backupOf(null), volumes: ['data', 'data'], names: ['a', 'b'] }
    await assert.rejects(source.command('backup.start', twice), refusedWith('BACKUP_REFUSED'))
  })
})

async function bytesOfPacks(): Promise<number> {
  const packs = join(source.directory, 'vault', 'packs')
  const names = await readdir(packs, { recursive: true }).catch(() => [])
  const facts = await Promise.all(names.map((name) => stat(join(packs, name))))
  return facts.reduce((sum, one) => sum + (one.isFile() ? one.size : 0), 0)
}

const isId = (name: string): boolean => /^[0-9a-f]{8}-/.test(name)

describe('restores', () => {
  const restoreOf = (volume: string, more: object = {}) => ({
    restore: randomUUID(),
    checkpoint: first.checkpoint ?? '',
    volumes: [{ name: 'data', volume, pair: null, blank: false }],
    rate_bytes: 0,
    ...more,
  })

  test('a killed agent goes on, and lets no client in until it has ended', async () => {
    await source.ask('lab.volume', { volume: 'new', size: SIZE + MIB })
    // What was there goes, beyond the end of the checkpoint too.
    await source.ask('lab.fill', { volume: 'new', from: PIECES - 60, to: PIECES + 16, seed: 9 })
    const request = restoreOf('new', { rate_bytes: 48 * MIB })
    await source.until('restore.start', request, (info) => info.done_bytes > 8 * MIB)
    const closed = () =>
      assert.rejects(connectNbd({ unix: source.socket }, { exportName: 'new' }), /being restored/)
    await closed()
    await source.kill()
    await source.start()
    await closed()
    const info = await source.ended('restore.start', request)
    assert.equal(info.state, 'done', info.reason ?? '')
    assert.equal(info.verified, true)
    assert.equal(info.done_bytes, SIZE + MIB)
    const image = Buffer.concat([imageOf(seeds), Buffer.alloc(MIB)])
    assert.deepEqual(await source.ask('lab.digest', { volume: 'new' }), { sha256: digestOf(image) })
    const client = await connectNbd({ unix: source.socket }, { exportName: 'new' })
    await client.disconnect()
  })

  test('a volume that a client has open, or that is too small, is refused and not touched', async () => {
    const client = await connectNbd({ unix: source.socket }, { exportName: 'new' })
    await assert.rejects(
      source.command('restore.start', restoreOf('new')),
      refusedWith('VOLUME_BUSY'),
    )
    await client.disconnect()
    await source.ask('lab.volume', { volume: 'small', size: MIB })
    await assert.rejects(
      source.command('restore.start', restoreOf('small')),
      refusedWith('SIZE_MISMATCH'),
    )
    await assert.rejects(
      source.command('restore.start', restoreOf('small', { checkpoint: randomUUID() })),
      refusedWith('CHECKPOINT_UNKNOWN'),
    )
  })
})

describe('checkpoints over NBD', () => {
  test('an attached checkpoint is read straight from the vault, and cannot be written', async () => {
    const checkpoint = first.checkpoint ?? ''
    const answer = await source.command('vault.attach', { checkpoint, owner: 'me' })
    const [one] = answer.exports
    assert.deepEqual(one, {
      name: `checkpoint/${checkpoint}/data`,
      volume: 'data',
      size_bytes: SIZE,
    })
    // Kept over a restart.
    await source.kill()
    await source.start()
    const client = await connectNbd({ unix: source.socket }, { exportName: one?.name ?? '' })
    assert.equal(client.sizeBytes, SIZE)
    const image = imageOf(seeds)
    for (const [offset, length] of [
      [0, 4096],
      [7 * PIECE_BYTES - 100, 200],
      [199 * PIECE_BYTES, 5 * PIECE_BYTES],
      [SIZE - 70_000, 70_000],
    ] as const) {
      const found = await client.read(offset, length)
      assert.ok(found.equals(image.subarray(offset, offset + length)), `at ${offset}`)
    }
    await assert.rejects(client.write(0, Buffer.alloc(512)))
    await source.command('vault.detach', { checkpoint })
    await assert.rejects(
      connectNbd({ unix: source.socket }, { exportName: one?.name ?? '' }),
      /no such checkpoint is attached/,
    )
  })
})

/** A line that can be cut. */
class Line {
  readonly #server: Server
  readonly #sockets = new Set<Socket>()

  private constructor(server: Server) {
    this.#server = server
  }

  static async to(port: number): Promise<Line> {
    const server = createServer()
    const line = new Line(server)
    server.on('connection', (near) => {
      const far = dial(port, '127.0.0.1')
      for (const socket of [near, far]) {
        line.#sockets.add(socket)
        socket.on('error', () => undefined)
        socket.on('close', () => {
          line.#sockets.delete(socket)
          near.destroy()
          far.destroy()
        })
      }
      near.pipe(far).pipe(near)
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    return line
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port
  }

  cut(): void {
    for (const socket of this.#sockets) socket.destroy()
  }

  close(): void {
    this.cut()
    this.#server.close()
  }
}

describe('replicas', () => {
  let target: SiteProcess
  let done: { readonly replica_checkpoint: string; readonly checkpoint: string }

  before(async () => {
    target = new SiteProcess(join(directory, 'target'), join(directory, 'pki'))
    await target.start()
  })
  after(() => target.kill())

  const replicaOf = async (replica: string, more: object = {}) => {
    const { target: admitted } = await target.command('replica.admit', {
      replica,
      labels: { owner: 'them', policy: 'p1' },
    })
    return {
      replica,
      checkpoint: first.checkpoint ?? '',
      target: admitted,
      accelerate: false,
      rate_bytes: 0,
      ...more,
    }
  }

  test('kills of both ends and a cut line send little twice, and the replica stands alone', async () => {
    const replica = randomUUID()
    const line = await Line.to(Number(new URL((await replicaOf(replica)).target.url).port))
    const through = async () => {
      const request = await replicaOf(replica, { rate_bytes: 16 * MIB })
      const { port } = new URL(request.target.url)
      return { request, port: Number(port) }
    }
    const { request } = await through()
    const cutLine = {
      ...request,
      target: { ...request.target, url: `https://127.0.0.1:${line.port}` },
    }
    await source.until('replica.start', cutLine, (info) => info.sent_bytes > 3 * MIB)
    line.cut()
    await source.until('replica.start', cutLine, (info) => info.sent_bytes > 6 * MIB)
    await source.kill()
    await source.start()
    await source.until('replica.start', cutLine, (info) => info.sent_bytes > 10 * MIB)
    await target.kill()
    await target.start()
    line.close()
    // Its door is another one now, so another ticket is asked for.
    const { request: last } = await through()
    const info = await source.ended('replica.start', last)
    assert.equal(info.state, 'done', info.reason ?? '')
    const all = (PIECES - HOLE) * RANDOM_BYTES
    assert.ok(info.missing_bytes > all * 0.9, `${info.missing_bytes} were missing`)
    assert.ok(
      info.sent_bytes <= 1.05 * info.missing_bytes,
      `${info.sent_bytes} sent, ${info.missing_bytes} missing`,
    )
    done = { replica_checkpoint: info.checkpoint ?? '', checkpoint: first.checkpoint ?? '' }
    const { manifest } = await (await target.vault()).checkpoint(info.checkpoint ?? '')
    assert.equal(manifest.labels['owner'], 'them')
    assert.equal(manifest.labels['policy'], 'p1')
    assert.equal(manifest.labels['server'], 'db1')
    assert.equal(manifest.createdMs, first.taken_at)
    // With the source gone.
    const vault = join(source.directory, 'vault')
    await rename(vault, `${vault}-gone`)
    try {
      await assertHolds(target, info.checkpoint ?? '', imageOf(seeds))
      const report = await (await target.vault()).verify({ data: true })
      assert.deepEqual(report.damage, [])
    } finally {
      await rename(`${vault}-gone`, vault)
    }
  })

  test('the next one sends what changed and no more, also when accelerated', async () => {
    await source.ask('lab.fill', { volume: 'data', from: 300, to: 310, seed: 5 })
    seeds.fill(5, 300, 310)
    first = await source.ended('backup.start', backupOf(first.checkpoint))
    const request = await replicaOf(randomUUID(), { base: done, accelerate: true })
    const info = await source.ended('replica.start', request)
    assert.equal(info.state, 'done', info.reason ?? '')
    assert.ok(info.sent_bytes > 0 && info.sent_bytes <= 10 * PIECE_BYTES, String(info.sent_bytes))
    await assertHolds(target, info.checkpoint ?? '', imageOf(seeds))
  })

  test('without a base the same chunks are known by their names', async () => {
    const info = await source.ended('replica.start', await replicaOf(randomUUID()))
    assert.equal(info.state, 'done', info.reason ?? '')
    assert.equal(info.sent_bytes, 0)
    await assertHolds(target, info.checkpoint ?? '', imageOf(seeds))
  })

  test('a ticket is for its replica only, and a forged one is none', async () => {
    const request = await replicaOf(randomUUID())
    const other = await source.ended('replica.start', { ...request, replica: randomUUID() })
    assert.equal(other.code, 'TICKET_REFUSED')
    const ticket = `${request.target.ticket.slice(0, -4)}AAAA`
    const forged = { ...request, target: { ...request.target, ticket } }
    assert.equal((await source.ended('replica.start', forged)).code, 'TICKET_REFUSED')
    // With the right one it goes on.
    assert.equal((await source.ended('replica.start', request)).state, 'done')
  })

  test('an authority that did not certify the other side is believed by nobody', async () => {
    const request = await replicaOf(randomUUID())
    const stranger = await createAuthority('stranger', systemClock.wallMs())
    const wrong = { ...request, target: { ...request.target, authority: stranger.cert } }
    await source.command('replica.start', wrong)
    await source.until('replica.start', wrong, (info) => info.sent_bytes === 0)
    const { state, sent_bytes } = await source.command('replica.cancel', {
      replica: request.replica,
    })
    assert.deepEqual({ state, sent_bytes }, { state: 'cancelled', sent_bytes: 0 })
  })
})

describe('the vault of the region', () => {
  test('lists in pages, locks, forgets and collects', async () => {
    const all = await source.command('vault.list', { limit: 1000 })
    assert.deepEqual(all.damaged, [])
    assert.equal(all.more, false)
    const page = await source.command('vault.list', { limit: 2 })
    assert.equal(page.more, true)
    const next = await source.command('vault.list', {
      limit: 1000,
      after: page.checkpoints.at(-1)?.checkpoint ?? '',
    })
    assert.deepEqual([...page.checkpoints, ...next.checkpoints], all.checkpoints)
    const victim = all.checkpoints.find(({ checkpoint }) => checkpoint !== first.checkpoint)
    const checkpoint = victim?.checkpoint ?? ''
    const until = systemClock.wallMs() + 1500
    assert.deepEqual(await source.command('vault.lock', { checkpoint, until }), {
      locked_until: until,
    })
    assert.deepEqual(await source.command('vault.lock', { checkpoint, until: until - 1000 }), {
      locked_until: until,
    })
    await assert.rejects(
      source.command('vault.forget', { checkpoint }),
      refusedWith('CHECKPOINT_LOCKED'),
    )
    while (systemClock.wallMs() <= until) await new Promise((r) => setTimeout(r, 100))
    await source.command('vault.forget', { checkpoint })
    await source.command('vault.forget', { checkpoint })
    const collected = await source.ended('vault.collect', { collect: randomUUID() })
    assert.equal(collected.state, 'done', collected.reason ?? '')
    assert.equal(collected.checkpoints_deleted, 1)
    await assertHolds(source, first.checkpoint ?? '', imageOf(seeds))
  })

  test('damage is named by whoever meets it, and nothing passes for good', async () => {
    const packs = join(source.directory, 'vault', 'packs')
    const files: { path: string; bytes: number }[] = []
    for (const name of await readdir(packs, { recursive: true })) {
      const path = join(packs, name)
      const facts = await stat(path)
      if (facts.isFile()) files.push({ path, bytes: facts.size })
    }
    for (const { path, bytes } of files) {
      const file = await open(path, 'r+')
      await file.write(Buffer.alloc(64, 0xa5), 0, 64, Math.floor(bytes / 2))
      await file.close()
    }
    const verified = await source.ended('vault.verify', { verify: randomUUID(), data: true })
    assert.equal(verified.state, 'done')
    assert.ok(
      verified.damages.some((text) => /packs\/.*record \d+ \(chunk [0-9a-f]{64}\)/.test(text)),
    )
    assert.ok(verified.damaged_checkpoints.includes(first.checkpoint ?? ''))
    await source.ask('lab.volume', { volume: 'again', size: SIZE })
    const restore = await source.ended('restore.start', {
      restore: randomUUID(),
      checkpoint: first.checkpoint ?? '',
      volumes: [{ name: 'data', volume: 'again', pair: null, blank: true }],
      rate_bytes: 0,
    })
    assert.equal(restore.code, 'VAULT_DAMAGED')
    assert.match(restore.reason ?? '', /packs\/.*chunk|packs\/.*block/)
  })
})
