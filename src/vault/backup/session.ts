import { randomBytes } from 'node:crypto'
import type { Clock } from '#base/clock.ts'
import { assert } from '#base/assert.ts'
import { Fault, isFault } from '#base/fault.ts'
import { newId } from '#base/ids.ts'
import { createChunkSource } from '../chunks/chunk-source.ts'
import { createKnownTable, type KnownTable } from '../chunks/known-table.ts'
import { createPackWriter, type PackWriter } from '../chunks/pack-writer.ts'
import { type Batch, createPool, type ThreadPool } from '../chunks/pool.ts'
import { KNOWN, readResult, STORED, ZERO } from '../chunks/thread-protocol.ts'
import { CHECKPOINT_UNKNOWN, BACKUP_MISUSED, BACKUP_REVOKED, VAULT_DAMAGED } from '../faults.ts'
import { type Entry, FLAG_NODE } from '../format/entry.ts'
import {
  decodeManifest,
  encodeManifest,
  type Manifest,
  manifestKey,
  type VolumeRecord,
} from '../format/manifest.ts'
import { decodeNode } from '../format/node.ts'
import {
  type ChunkHasher,
  createHasher,
  createSealer,
  openRecord,
  type RecordSealer,
} from '../format/record.ts'
import { blockNaming, type DataKey, type Keyring, nodeNaming, recordKey } from '../keys/keyring.ts'
import { KNOWN_SLOTS_MAX, NODE_ENTRIES, RECORDS_PER_INDEX } from '../limits.ts'
import { takeLease } from '../collect/leases.ts'
import { forgottenKey, readCondemned } from '../collect/condemned.ts'
import type { ObjectStore } from '../object-store.ts'
import { createNodeReader, NODE_BYTES_MAX } from '../tree/node-reader.ts'
import { createTreeBuilder } from '../tree/tree-builder.ts'
import { listPacks, loadKnown, putIndex } from './index-objects.ts'
import { createVolumeWriter, type VolumeWriter } from './volume-writer.ts'

/* A backup that runs. From blocks to a checkpoint:
 *
 *   caller ─► batch of shared memory ─► thread: zero? hash, known? compress, encrypt ─► here, in order: tree and pack ─► store
 *
 * Order of durability, which is all that crash safety rests on:
 *   1. the lease, before anything is read that will be built on
 *   2. packs, then the index objects that repeat what is in them
 *   3. the manifest, put once, under the session's id. It makes the checkpoint exist; before it there is nothing but packs that
 *      nobody refers to, which a later backup finds and uses, or the collector deletes.
 *
 * Nothing here may use what the collector has condemned, except through the parent's tree: the parent is there for as
 * long as this session's lease is, and the collector keeps what the parent refers to. */

export interface BackupOptions {
  /** Checkpoint whose volumes of the same id are the base: blocks that are not given stay as they were. */
  readonly parent?: string
  readonly labels?: Readonly<Record<string, string>>
  /** zstd level, 1 to 19. Default 1. */
  readonly level?: number
  readonly threads?: number
  /** A data key of the keyring, for checkpoints that come from another vault and keep its chunk names. Default: the vault's own newest. */
  readonly dataKey?: DataKey
  readonly packBytes?: number
  /** Slots of the table of known chunks, 32 bytes each. */
  readonly knownSlotsMax?: number
  /** Moment that the checkpoint shows, ms since 1970. Default: when the backup began. */
  readonly createdMs?: number
  /** Batches that the caller's own thread does before threads are started; 0 where it must not stand still. Default: a few, as threads take time to start. */
  readonly inlineBatches?: number
  /** There is much to read: threads are started at once. */
  readonly eager?: boolean
  /** Told of index objects and footers that could not be read; the backup goes on without them. */
  readonly damaged?: (fault: Fault) => void
}

export interface BackupProgress {
  /** Blocks that were looked at, and what became of them. */
  readonly blocks: number
  readonly zero: number
  /** Already in the vault, here or elsewhere. */
  readonly known: number
  readonly stored: number
  readonly bytesStored: number
}

export interface BackupSession {
  /** UUID; the checkpoint will have it. */
  readonly id: string
  /** Begins a volume. A few may be open at a time: two per thread, as each may hold a batch that is not full. */
  openVolume(volume: { readonly id: string; readonly sizeBytes: number }): Promise<VolumeWriter>
  /** Whether the vault holds a chunk of this name (as entries of another checkpoint of the same origin tell). */
  known(id: Buffer): boolean
  progress(): BackupProgress
  /** What was taken over until now is durable when it settles, and found again by whoever continues. Each call ends a pack: not too often. */
  flush(): Promise<void>
  /** Makes the checkpoint. Durable, with all it needs, when it settles. All volumes must be finished. */
  commit(labels?: Readonly<Record<string, string>>): Promise<Manifest>
  /** Ends the session without a checkpoint. What was stored may be used by later backups. Safe to call after commit. */
  abandon(): Promise<void>
}

export interface SessionDeps {
  readonly store: ObjectStore
  readonly keyring: Keyring
  readonly blockBytes: number
  readonly clock: Clock
}

/** What volume writers share. */
export interface SessionCore {
  readonly blockBytes: number
  readonly pool: ThreadPool
  /** Throws what went wrong before. */
  check(): void
  /** Carries out `act` when everything submitted before has been. */
  inOrder(act: () => Promise<void>): Promise<void>
  apply(
    target: ApplyTarget,
    batch: Batch,
    blocks: readonly number[],
    lengths: readonly number[],
  ): Promise<void>
  putNode(bytes: Buffer): Entry
  find(id: Buffer): Entry | undefined
}

export interface ApplyTarget {
  seek(block: number): Promise<void>
  holds(block: number, id: Buffer): boolean
  holdsZero(block: number): boolean
  set(block: number, entry: Entry): void
  zero(block: number): void
}

export async function beginBackup(
  deps: SessionDeps,
  options: BackupOptions,
): Promise<BackupSession> {
  const { store, keyring, blockBytes, clock } = deps
  const id = newId()
  const startedMs = clock.wallMs()
  const about = { kind: 'backup', pid: process.pid, started: new Date(startedMs).toISOString() }
  const lease = await takeLease(store, clock, id, about, () => undefined)
  try {
    const [parent, packs] = await Promise.all([
      options.parent === undefined ? undefined : readParent(deps, options.parent),
      packsToBuildOn(deps, options.damaged),
    ])

    const key = options.dataKey ?? keyring.current
    const naming = blockNaming(key)
    const salt = randomBytes(32)
    const secret = recordKey(key, salt)
    // The table may grow while it is filled, before there are threads to be told.
    const started: { pool?: ThreadPool } = {}
    // Blocks take two thirds of their size or less where compression finds something.
    const expected = ([...packs.values()].reduce((sum, bytes) => sum + bytes, 0) / blockBytes) * 1.5
    const table = createKnownTable(options.knownSlotsMax ?? KNOWN_SLOTS_MAX, expected, (memory) =>
      started.pool?.replaceKnown(memory),
    )
    await loadKnown(store, keyring, table, packs, options.damaged ?? (() => undefined))
    const level = options.level ?? 1
    const pool = createPool({
      blockBytes,
      level,
      naming,
      recordKey: secret,
      known: table.memory,
      ...(options.threads === undefined ? {} : { threads: options.threads }),
      ...(options.inlineBatches === undefined ? {} : { inlineBatches: options.inlineBatches }),
      eager: options.eager === true,
    })
    started.pool = pool
    return createSession({
      ...deps,
      id,
      startedMs,
      parent,
      options,
      table,
      pool,
      lease,
      writer: createPackWriter({
        store,
        keyring,
        keyId: key.id,
        salt,
        sessionId: Buffer.from(id.replaceAll('-', ''), 'hex'),
        ...(options.packBytes === undefined ? {} : { packBytes: options.packBytes }),
      }),
      // Thread 0: the threads of the pool count from 1.
      sealer: createSealer(secret, 0, level),
      secret,
      nodeHasher: createHasher(nodeNaming(key)),
    })
  } catch (error) {
    await lease.release()
    throw error
  }
}

/**
 * Those that no collector is about to delete. The lease is out by now. The lists are read first: one that goes meanwhile takes its packs with it, and they are not seen
 * any more.
 */
async function packsToBuildOn(
  { store, keyring }: SessionDeps,
  damaged: (fault: Fault) => void = () => undefined,
): Promise<Map<string, number>> {
  try {
    const condemned = await readCondemned(store, keyring)
    const packs = await listPacks(store)
    for (const hex of condemned.flatMap((list) => list.packs)) packs.delete(hex)
    return packs
  } catch (error) {
    if (!isFault(error, VAULT_DAMAGED)) throw error
    // A list that cannot be read could name any pack. What the parent holds is safe: the collector moves what is in use.
    damaged(error)
    return new Map()
  }
}

/** The lease is out by now, so a parent that is not forgotten stays until the lease ends. */
async function readParent(
  { store, keyring, blockBytes }: SessionDeps,
  id: string,
): Promise<Manifest> {
  if ((await store.stat(forgottenKey(id))) !== undefined) {
    throw new Fault(CHECKPOINT_UNKNOWN, `basing a backup on ${id}: it is being deleted`, { id })
  }
  const manifest = decodeManifest(keyring, id, await store.get(manifestKey(id)))
  if (manifest.blockBytes !== blockBytes) {
    throw new Fault(BACKUP_MISUSED, `basing a backup on ${id}: its blocks have another size`, {
      id,
    })
  }
  return manifest
}

interface SessionParts extends SessionDeps {
  readonly id: string
  readonly startedMs: number
  readonly parent: Manifest | undefined
  readonly options: BackupOptions
  readonly table: KnownTable
  readonly pool: ThreadPool
  readonly writer: PackWriter
  readonly sealer: RecordSealer
  readonly secret: Buffer
  readonly nodeHasher: ChunkHasher
  readonly lease: { release(): Promise<void> }
}

function createSession(parts: SessionParts): BackupSession {
  const { store, keyring, blockBytes, pool, table, writer, sealer, parent, id } = parts
  const source = createChunkSource(store, keyring)
  const nodes = createNodeReader(source)
  const counts = { blocks: 0, zero: 0, known: 0, stored: 0 }
  const finished: VolumeRecord[] = []
  let openVolumes = 0
  let failure: Error | undefined
  let ended = false
  let indexing = Promise.resolve()
  let last: Promise<void> = Promise.resolve()

  const fail = (error: unknown) => {
    failure ??= error instanceof Error ? error : new Error(String(error))
  }

  function check(): void {
    if (failure !== undefined) throw failure
    assert(!ended, 'the session has not ended')
  }

  function keep(chunk: Buffer, block: Buffer, flags: number): Entry {
    const known = table.find(chunk)
    if (known !== undefined) return known
    const record = sealer.seal(chunk, block, flags)
    const entry = writer.add(chunk, record.bytes, record.length, record.flags)
    table.insert(entry)
    return entry
  }

  async function writeIndex(): Promise<void> {
    const packs = writer.takeStored()
    if (packs.length > 0) await putIndex(store, keyring, packs)
  }

  const core: SessionCore = {
    blockBytes,
    pool,
    check,
    inOrder(act) {
      last = last.then(async () => {
        if (failure !== undefined) return
        try {
          await act()
        } catch (error) {
          fail(error)
        }
      })
      return last
    },
    async apply(target, batch, blocks, lengths) {
      let page = -1
      for (const [i, block] of blocks.entries()) {
        const nextPage = Math.floor(block / NODE_ENTRIES)
        if (nextPage !== page) await target.seek(block)
        page = nextPage
        const result = readResult(batch.results, i)
        counts.blocks++
        if (result.state === ZERO) {
          counts.zero++
          if (!target.holdsZero(block)) target.zero(block)
          continue
        }
        assert(result.state === KNOWN || result.state === STORED, 'the thread has decided')
        if (target.holds(block, result.id)) {
          counts.known++
          continue
        }
        const known = table.find(result.id)
        if (known !== undefined) {
          counts.known++
          target.set(block, known)
          continue
        }
        counts.stored++
        if (result.state === KNOWN) {
          const at = i * blockBytes
          const bytes = batch.input.subarray(at, at + (lengths[i] ?? 0))
          target.set(block, keep(result.id, bytes, 0))
          continue
        }
        const record = batch.output.subarray(result.offset, result.offset + result.length)
        const entry = writer.add(result.id, [record], result.length, result.flags)
        table.insert(entry)
        target.set(block, entry)
      }
      await writer.ready()
      if (writer.recordsStored >= RECORDS_PER_INDEX) {
        await indexing
        indexing = writeIndex().catch(fail)
      }
    },
    find: (chunk) => table.find(chunk),
    putNode: (bytes) => keep(parts.nodeHasher.id(bytes), bytes, FLAG_NODE),
  }

  async function end(committed: boolean): Promise<void> {
    if (ended) return
    ended = true
    await last
    await indexing
    pool.close(committed)
    await parts.lease.release()
  }

  return {
    id,
    known: (chunk) => table.has(chunk),
    progress: () => ({ ...counts, bytesStored: writer.bytesStored }),
    async flush() {
      check()
      await core.inOrder(async () => await writer.flush())
      check()
    },
    async openVolume({ id: volumeId, sizeBytes }) {
      check()
      refuseBadVolume(volumeId, sizeBytes)
      if (openVolumes >= pool.writersMax) {
        throw new Fault(BACKUP_MISUSED, `opening volume ${volumeId}: ${openVolumes} are open`)
      }
      const blocks = Math.ceil(sizeBytes / blockBytes)
      const base = parent?.volumes.find((volume) => volume.id === volumeId)
      if (base !== undefined && base.sizeBytes > sizeBytes) {
        throw new Fault(
          BACKUP_MISUSED,
          `opening volume ${volumeId}: it has ${sizeBytes} bytes, and ${base.sizeBytes} in the parent`,
        )
      }
      const builder = createTreeBuilder({
        blocks,
        readNode: async (entry, level) => {
          // Blocks that come out of order open a node again that was closed a moment ago.
          const record = writer.pending(entry)
          if (record === undefined) return await nodes.read(entry, level)
          const bytes = openRecord(parts.secret, entry.id, entry.flags, record, NODE_BYTES_MAX)
          assert(bytes !== undefined, 'a record that was just made opens')
          return decodeNode(bytes, level)
        },
        putNode: (bytes) => core.putNode(bytes),
        ...(base === undefined
          ? {}
          : {
              parent: { root: base.root, blocks: Math.ceil(base.sizeBytes / blockBytes) },
            }),
      })
      openVolumes++
      return createVolumeWriter(core, builder, sizeBytes, (root) => {
        openVolumes--
        finished.push({ id: volumeId, sizeBytes, root })
      })
    },
    async commit(labels) {
      check()
      assert(openVolumes === 0, 'all volumes are finished before the commit')
      await last
      check()
      await writer.flush()
      await indexing
      await writeIndex()
      check()
      const manifest: Manifest = {
        id,
        createdMs: parts.options.createdMs ?? parts.startedMs,
        blockBytes,
        ...(parent === undefined ? {} : { parent: parent.id }),
        labels: { ...parts.options.labels, ...labels },
        volumes: finished.toSorted((a, b) => (a.id < b.id ? -1 : 1)),
        storedBytes: writer.bytesStored,
        durationMs: Math.max(0, parts.clock.wallMs() - parts.startedMs),
      }
      const bytes = encodeManifest(keyring, manifest)
      if (!(await store.put(manifestKey(id), bytes, { ifAbsent: true }))) {
        const there = await store.get(manifestKey(id))
        // Ours, when the store was slow to answer and its client asked twice.
        if (!there.equals(bytes)) {
          throw new Fault(BACKUP_REVOKED, `committing checkpoint ${id}`, { id })
        }
      }
      await end(true)
      return manifest
    },
    abandon: () => end(false),
  }
}

const VOLUME_ID = /^[^\p{Cc}]{1,255}$/u

function refuseBadVolume(id: string, sizeBytes: number): void {
  if (!VOLUME_ID.test(id)) {
    throw new Fault(BACKUP_MISUSED, 'opening a volume: its id is empty, long or unprintable')
  }
  if (!Number.isSafeInteger(sizeBytes) || sizeBytes <= 0) {
    throw new Fault(BACKUP_MISUSED, `opening volume ${id}: ${sizeBytes} is no size`)
  }
}
