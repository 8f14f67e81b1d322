import { Fault } from '#base/fault.ts'
import {
  type ChunkSource,
  createChunkSource,
  damagedChunk,
  type Fetched,
} from '../chunks/chunk-source.ts'
import { openFetched } from '../chunks/open-fetched.ts'
import { type Batch, createPool, type ThreadPool } from '../chunks/pool.ts'
import { CHECKPOINT_UNKNOWN } from '../faults.ts'
import type { Entry } from '../format/entry.ts'
import type { Manifest, VolumeRecord } from '../format/manifest.ts'
import { openRecord } from '../format/record.ts'
import type { Keyring } from '../keys/keyring.ts'
import { EAGER_BYTES } from '../limits.ts'
import type { ObjectStore } from '../object-store.ts'
import { createNodeReader, type NodeReader } from '../tree/node-reader.ts'
import { type VolumeTree, walkBlocks, walkChanges, type WalkedBlocks } from '../tree/walk.ts'

/* Reads a checkpoint. Every block that leaves here has been authenticated against the id in the tree, whose root is in the authenticated
 * manifest: what is restored is what was backed up, or an error that names the object. */

/** Where a restore goes. Calls come in any order and several at a time, for ranges that do not overlap. */
export interface RestoreSink {
  write(offset: number, data: Buffer): Promise<void>
  /** Absent: the target reads as zeroes already. */
  readonly zero?: (offset: number, length: number) => Promise<void>
}

export interface RestoreOptions {
  readonly offset?: number
  readonly length?: number
  readonly threads?: number
  readonly signal?: AbortSignal
  /** Bytes that are done, zeroes included. */
  readonly progress?: (bytes: number) => void
  /** Given: blocks that cannot be read are told here and left out, instead of ending the restore. */
  readonly damaged?: (fault: Fault, offset: number, length: number) => void
}

export interface Checkpoint {
  readonly manifest: Manifest
  /** Bytes of a volume. For single reads; `restore` is for many. Throws VAULT_DAMAGED, naming the object. */
  read(volume: string, offset: number, length: number): Promise<Buffer>
  /** Bytes in order, as pieces of at most a batch; zeroes too. */
  stream(volume: string, options?: Pick<RestoreOptions, 'offset' | 'length'>): AsyncIterable<Buffer>
  /** Reads with all threads. All writes of the sink have settled when it does. */
  restore(volume: string, sink: RestoreSink, options?: RestoreOptions): Promise<void>
  /** Names and places of the blocks, in order. */
  blocks(volume: string, fromBlock?: number, toBlock?: number): AsyncIterable<WalkedBlocks>
  /** Blocks that may differ from those of the same volume in another checkpoint, in order; reads only what the trees do not share. */
  changes(volume: string, base: Manifest): AsyncIterable<WalkedBlocks>
  /** Content of a block, by its entry. Throws VAULT_DAMAGED, naming pack and chunk. */
  readBlock(entry: Entry): Promise<Buffer>
  /** Blocks as they are stored, and what opens them; not looked into. */
  records(entries: readonly Entry[]): Promise<Fetched>
}

export function createCheckpoint(
  store: ObjectStore,
  keyring: Keyring,
  manifest: Manifest,
): Checkpoint {
  const { blockBytes } = manifest
  const source = createChunkSource(store, keyring)
  const nodes = createNodeReader(source)

  function volumeOf(id: string): VolumeRecord {
    const found = manifest.volumes.find((volume) => volume.id === id)
    if (found === undefined) {
      throw new Fault(CHECKPOINT_UNKNOWN, `reading volume ${id} of checkpoint ${manifest.id}`, {
        id,
      })
    }
    return found
  }

  const treeOf = (volume: VolumeRecord): VolumeTree => ({
    root: volume.root,
    blocks: Math.ceil(volume.sizeBytes / blockBytes),
  })

  const walk = (volume: VolumeRecord, from: number, to: number) =>
    walkBlocks(treeOf(volume), from, to, (entry, level) => nodes.read(entry, level))

  async function read(id: string, offset: number, length: number): Promise<Buffer> {
    const volume = volumeOf(id)
    if (offset < 0 || length < 0 || offset + length > volume.sizeBytes) {
      throw new Fault(
        CHECKPOINT_UNKNOWN,
        `reading ${length} bytes at ${offset} of volume ${id}, which has ${volume.sizeBytes}`,
      )
    }
    const result = Buffer.alloc(length)
    const wanted: { entry: Entry; block: number }[] = []
    const [from, to] = [Math.floor(offset / blockBytes), Math.ceil((offset + length) / blockBytes)]
    for await (const item of walk(volume, from, to)) {
      if (item.kind === 'data') wanted.push(item)
    }
    const { pieces, items } = await source.fetch(wanted.map(({ entry }) => entry))
    for (const item of items) {
      const { entry, block } = wanted[item.entry] as (typeof wanted)[number]
      const piece = pieces[item.piece] as Buffer
      const record = piece.subarray(item.offset, item.offset + item.length)
      const bytes = openRecord(item.key, entry.id, item.flags, record, blockBytes)
      if (bytes === undefined) throw damagedChunk(source.locate(entry))
      const at = block * blockBytes - offset
      bytes.copy(result, Math.max(0, at), Math.max(0, -at))
    }
    return result
  }

  return {
    manifest,
    read,
    async *stream(id, { offset = 0, length } = {}) {
      const end = offset + (length ?? volumeOf(id).sizeBytes - offset)
      const step = Math.max(blockBytes, 4 * 1024 * 1024)
      for (let at = offset; at < end; at += step) yield await read(id, at, Math.min(step, end - at))
    },
    blocks(id, from = 0, to = Number.MAX_SAFE_INTEGER) {
      return walk(volumeOf(id), from, to)
    },
    changes(id, base) {
      const before = base.volumes.find((volume) => volume.id === id)
      const volume = volumeOf(id)
      if (before === undefined || before.sizeBytes > volume.sizeBytes) {
        return walk(volume, 0, Number.MAX_SAFE_INTEGER)
      }
      return walkChanges(treeOf(volume), treeOf(before), (entry, level) => nodes.read(entry, level))
    },
    readBlock: (entry) => source.read(entry, blockBytes),
    records: (entries) => source.fetch(entries),
    async restore(id, sink, options = {}) {
      const volume = volumeOf(id)
      const pool = createPool({
        blockBytes,
        level: 1,
        eager: (options.length ?? volume.sizeBytes) > EAGER_BYTES,
        ...(options.threads === undefined ? {} : { threads: options.threads }),
      })
      try {
        await restoreVolume({ volume, blockBytes, sink, options, source, nodes, pool })
      } finally {
        pool.close()
      }
    },
  }
}

interface Restoring {
  readonly volume: VolumeRecord
  readonly blockBytes: number
  readonly sink: RestoreSink
  readonly options: RestoreOptions
  readonly source: ChunkSource
  readonly nodes: NodeReader
  readonly pool: ThreadPool
}

interface BatchOfBlocks {
  readonly block: number
  readonly entry: Entry
}

async function restoreVolume(parts: Restoring): Promise<void> {
  const { volume, blockBytes, sink, options, pool } = parts
  const offset = options.offset ?? 0
  const end = offset + (options.length ?? volume.sizeBytes - offset)
  const tree = { root: volume.root, blocks: Math.ceil(volume.sizeBytes / blockBytes) }
  const running = new Set<Promise<void>>()
  let failure: Error | undefined
  let doneBytes = 0

  const advance = (bytes: number) => {
    doneBytes += bytes
    options.progress?.(doneBytes)
  }
  const clip = (block: number, count: number): [number, number] => {
    const from = Math.max(offset, block * blockBytes)
    return [from, Math.min(end, (block + count) * blockBytes) - from]
  }

  async function send(blocks: readonly BatchOfBlocks[]): Promise<void> {
    if (blocks.length === 0) return
    const batch = await pool.acquire()
    const task = restoreBatch(parts, batch, blocks, clip)
      .then(() => advance(blocks.length * blockBytes))
      .catch((error: unknown) => {
        failure ??= error instanceof Error ? error : new Error(String(error))
      })
      .finally(() => {
        pool.release(batch)
        running.delete(task)
      })
    running.add(task)
  }

  let blocks: BatchOfBlocks[] = []
  let zeroes: { block: number; count: number } | undefined
  const sendZeroes = async () => {
    if (zeroes === undefined) return
    await sink.zero?.(...clip(zeroes.block, zeroes.count))
    advance(zeroes.count * blockBytes)
    zeroes = undefined
  }
  try {
    const [from, to] = [Math.floor(offset / blockBytes), Math.ceil(end / blockBytes)]
    const readNode = (entry: Entry, level: number) => parts.nodes.read(entry, level)
    for await (const item of walkBlocks(tree, from, to, readNode)) {
      options.signal?.throwIfAborted()
      if (failure !== undefined) throw failure
      if (item.kind === 'zero') {
        if (zeroes !== undefined && zeroes.block + zeroes.count === item.block) {
          zeroes.count += item.count
        } else {
          await sendZeroes()
          zeroes = { block: item.block, count: item.count }
        }
        continue
      }
      blocks.push(item)
      if (blocks.length === pool.blocksPerBatch) {
        await send(blocks)
        blocks = []
      }
    }
    await send(blocks)
    await sendZeroes()
  } finally {
    await Promise.all(running)
  }
  if (failure !== undefined) throw failure
}

async function restoreBatch(
  { source, pool, sink, options, blockBytes }: Restoring,
  batch: Batch,
  blocks: readonly BatchOfBlocks[],
  clip: (block: number, count: number) => [number, number],
): Promise<void> {
  const bad = new Set<number>()
  const tell = (i: number, fault: Fault) => {
    if (options.damaged === undefined) throw fault
    bad.add(i)
    options.damaged(fault, ...clip((blocks[i] as BatchOfBlocks).block, 1))
  }
  const fetched = await fetchOrTell(
    source,
    blocks,
    batch.output,
    options.damaged !== undefined,
    tell,
  )
  const entries = blocks.map(({ entry }) => entry)
  for (const i of await openFetched(pool, batch, entries, fetched)) {
    tell(i, damagedChunk(source.locate((blocks[i] as BatchOfBlocks).entry)))
  }
  // Blocks that are neighbours in the volume are neighbours in the batch.
  for (let i = 0; i < blocks.length; ) {
    if (bad.has(i)) {
      i++
      continue
    }
    const first = blocks[i] as BatchOfBlocks
    let count = 1
    while (
      i + count < blocks.length &&
      !bad.has(i + count) &&
      blocks[i + count]?.block === first.block + count
    ) {
      count++
    }
    const [at, bytes] = clip(first.block, count)
    const from = i * blockBytes + (at - first.block * blockBytes)
    await sink.write(at, batch.input.subarray(from, from + bytes))
    i += count
  }
}

/** All at once; when that fails and the caller wants to go on, block by block, to learn which ones cannot be read. */
async function fetchOrTell(
  source: ChunkSource,
  blocks: readonly BatchOfBlocks[],
  into: Buffer,
  goOn: boolean,
  tell: (i: number, fault: Fault) => void,
) {
  const entries = blocks.map(({ entry }) => entry)
  try {
    return await source.fetch(entries, into)
  } catch (error) {
    if (!goOn || !(error instanceof Fault)) throw error
  }
  const pieces: Buffer[] = []
  const items = []
  for (const [i, entry] of entries.entries()) {
    try {
      const one = await source.fetch([entry])
      items.push(...one.items.map((item) => ({ ...item, entry: i, piece: pieces.length })))
      pieces.push(...one.pieces)
    } catch (error) {
      if (!(error instanceof Fault)) throw error
      tell(i, error)
    }
  }
  return { pieces, items }
}
