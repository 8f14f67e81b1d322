import type { Entry } from '#vault/format/entry.ts'
import type { Manifest } from '#vault/format/manifest.ts'
import type { Checkpoint } from '#vault/restore/checkpoint.ts'
import { HAVE_BLOCKS_MAX, PUT_BYTES, type PutItem } from '#wire/replica/messages.ts'
import { RecordDamaged, type ReplicaLine } from './replica-line.ts'
import type { SentRecord, Stronger } from './stronger.ts'

/* Sends the blocks of one volume that the other side has not. A group of blocks is asked for, then what is wanted of it is read and put, in small
 * bodies: what is on its way when a process dies is what is sent twice. Several groups at a time, each by a stream of its own. */

/** Blocks read and put together: 4 MiB of blocks of 64 KiB. */
const READ_BLOCKS = 64
const ITEMS_MAX = 1024

export interface SendVolume {
  readonly checkpoint: Checkpoint
  readonly volume: string
  readonly number: number
  /** Both sides have it: only what differs from it is looked at. */
  readonly base?: Manifest
  readonly line: ReplicaLine
  readonly streams: number
  /** Compress again before sending. */
  readonly again?: Stronger
  readonly signal: AbortSignal
  /** Ends the requests of the other streams. */
  readonly stop: () => void
  readonly onDone: (bytes: number) => void
  /** So many bytes of records go over the line now. */
  readonly onSend: (bytes: number) => void
  /** They have arrived; so many of the session are durable there. */
  readonly onArrived: (bytes: number, durable: number) => Promise<void>
}

interface DataBlock {
  readonly block: number
  readonly entry: Entry
}

interface Group {
  readonly blocks: DataBlock[]
  readonly zeroes: { readonly block: number; count: number }[]
}

export async function sendVolume(parts: SendVolume): Promise<void> {
  const groups = groupsOf(parts)
  let turn: Promise<unknown> = Promise.resolve()
  const next = (): Promise<IteratorResult<Group>> => {
    const result = turn.then(() => groups.next())
    turn = result.catch(() => undefined)
    return result
  }
  const stream = async () => {
    for (let group = await next(); group.done !== true; group = await next()) {
      parts.signal.throwIfAborted()
      await sendGroup(parts, group.value)
      const last = group.value.blocks.at(-1)?.block
      if (last !== undefined) parts.onDone(last * parts.checkpoint.manifest.blockBytes)
    }
  }
  let failure: Error | undefined
  const all = Array.from({ length: parts.streams }, () =>
    stream().catch((error: unknown) => {
      // The first one says why; the others end because of it.
      failure ??= error instanceof Error ? error : new Error(String(error))
      parts.stop()
    }),
  )
  await Promise.all(all)
  if (failure !== undefined) throw failure
}

async function* groupsOf(parts: SendVolume): AsyncGenerator<Group> {
  const { checkpoint, volume, base } = parts
  // Without a base the other side begins with zeroes.
  const items = base === undefined ? checkpoint.blocks(volume) : checkpoint.changes(volume, base)
  let group: Group = { blocks: [], zeroes: [] }
  for await (const item of items) {
    if (item.kind === 'data') group.blocks.push(item)
    else if (base !== undefined) addZeroes(group, item.block, item.count)
    if (group.blocks.length < HAVE_BLOCKS_MAX && group.zeroes.length < ITEMS_MAX) continue
    yield group
    group = { blocks: [], zeroes: [] }
  }
  yield group
}

function addZeroes({ zeroes }: Group, block: number, count: number): void {
  const last = zeroes.at(-1)
  if (last !== undefined && last.block + last.count === block) last.count += count
  else zeroes.push({ block, count })
}

async function sendGroup(parts: SendVolume, { blocks, zeroes }: Group): Promise<void> {
  const { line, number } = parts
  if (zeroes.length > 0) {
    const items = zeroes.map((one) => ({ kind: 'zeroes', ...one }) as const)
    await line.put({ volume: number, keys: [], items })
  }
  if (blocks.length === 0) return
  const named = blocks.map(({ block, entry }) => ({ block, id: entry.id }))
  const wanted = await line.have(number, named)
  const missing = blocks.filter((_, i) => wanted[i] === true)
  for (let at = 0; at < missing.length; at += READ_BLOCKS) {
    await sendBlocks(parts, missing.slice(at, at + READ_BLOCKS))
  }
}

async function sendBlocks(parts: SendVolume, blocks: readonly DataBlock[]): Promise<void> {
  const records = await recordsOf(parts, blocks)
  let items: PutItem[] = []
  let keys: Buffer[] = []
  let bytes = 0
  const send = async () => {
    if (items.length === 0) return
    const sent = bytes
    const put = { volume: parts.number, keys, items }
    items = []
    keys = []
    bytes = 0
    parts.onSend(sent)
    const { durable_bytes } = await naming(parts, blocks, () => parts.line.put(put))
    await parts.onArrived(sent, durable_bytes)
  }
  for (const [i, { block, entry }] of blocks.entries()) {
    const record = records[i]
    if (record === undefined) continue
    let key = keys.findIndex((one) => one.equals(record.key))
    if (key < 0) key = keys.push(record.key) - 1
    items.push({
      kind: 'record',
      block,
      id: entry.id,
      key,
      flags: record.flags,
      bytes: record.bytes,
    })
    bytes += record.bytes.length
    if (bytes >= PUT_BYTES) await send()
  }
  await send()
}

/** A record that does not open there is damaged here: reading it says which object it is in. */
async function naming<T>(
  { checkpoint }: SendVolume,
  blocks: readonly DataBlock[],
  work: () => Promise<T>,
): Promise<T> {
  try {
    return await work()
  } catch (error) {
    if (!(error instanceof RecordDamaged)) throw error
    const found = blocks.find(({ entry }) => entry.id.toString('hex') === error.chunk)
    if (found !== undefined) await checkpoint.readBlock(found.entry)
    throw error
  }
}

async function recordsOf(
  parts: SendVolume,
  blocks: readonly DataBlock[],
): Promise<(SentRecord | undefined)[]> {
  const { checkpoint, volume, again } = parts
  const entries = blocks.map(({ entry }) => entry)
  if (again === undefined) return await storedRecords(checkpoint, entries)
  const { blockBytes, volumes } = checkpoint.manifest
  const sizeBytes = volumes.find(({ id }) => id === volume)?.sizeBytes ?? 0
  const records: (SentRecord | undefined)[] = []
  for (let at = 0; at < blocks.length; at += again.blocksMax) {
    const some = entries.slice(at, at + again.blocksMax)
    const lengths = blocks
      .slice(at, at + again.blocksMax)
      .map(({ block }) => Math.min(blockBytes, sizeBytes - block * blockBytes))
    records.push(...(await again.again(some, lengths, await checkpoint.records(some))))
  }
  for (const [i, record] of records.entries()) {
    if (record !== undefined) continue
    records[i] = (await storedRecords(checkpoint, entries.slice(i, i + 1)))[0]
  }
  return records
}

async function storedRecords(
  checkpoint: Checkpoint,
  entries: readonly Entry[],
): Promise<(SentRecord | undefined)[]> {
  const { pieces, items } = await checkpoint.records(entries)
  const records: (SentRecord | undefined)[] = entries.map(() => undefined)
  for (const { entry, key, flags, piece, offset, length } of items) {
    const bytes = (pieces[piece] as Buffer).subarray(offset, offset + length)
    records[entry] = { key, flags, bytes }
  }
  return records
}
