import { Fault, isFault } from '#base/fault.ts'
import { DIRECT_BYTES, wholePages } from '#base/system/direct-io.ts'
import { OBJECT_MISSING, VAULT_DAMAGED } from '../faults.ts'
import { type Entry, FLAG_NODE } from '../format/entry.ts'
import { decodeMoves, type Move, movesKey } from '../format/moves.ts'
import { decodePackHeader, PACK_HEADER_BYTES, packKey } from '../format/pack.ts'
import { openRecord } from '../format/record.ts'
import { type Keyring, recordKey, unsealWith } from '../keys/keyring.ts'
import { FETCH_BYTES_MAX, FETCH_GAP_MAX } from '../limits.ts'
import type { ObjectStore } from '../object-store.ts'

/* Reads records by the places that entries name. A pack that is gone was rewritten by the collector: its `moves` object says where to. */

const PACKS_REMEMBERED = 4096

/** Records of many entries, as few and large reads. */
export interface Fetched {
  readonly pieces: readonly Buffer[]
  readonly items: readonly FetchedItem[]
}

export interface FetchedItem {
  /** Position in the list of entries asked for. */
  readonly entry: number
  readonly key: Buffer
  /** As stored now. */
  readonly flags: number
  readonly piece: number
  readonly offset: number
  readonly length: number
}

export interface ChunkSource {
  /** `into`: memory to read to, as far as it suffices. */
  fetch(entries: readonly Entry[], into?: Buffer): Promise<Fetched>
  /** One chunk. Throws VAULT_DAMAGED or OBJECT_MISSING, naming pack and chunk. `bytesMax`: size of a block. */
  read(entry: Entry, bytesMax: number): Promise<Buffer>
  /** The place where the chunk is now, as far as that is known without asking the store. */
  locate(entry: Entry): Entry
  /** Reads `moves` of packs that are gone, so that `locate` is right for them. */
  follow(entry: Entry, packs: { has(hex: string): boolean }): Promise<Entry>
  /** One move further; the entry itself when its pack is not known to have been rewritten. */
  step(entry: Entry): Entry
}

interface PackFacts {
  readonly key: Buffer
}

export function createChunkSource(store: ObjectStore, keyring: Keyring): ChunkSource {
  const packs = new Map<string, Promise<PackFacts>>()
  const moved = new Map<string, ReadonlyMap<number, Move>>()

  function factsOf(pack: Buffer): Promise<PackFacts> {
    const hex = pack.toString('hex')
    const known = packs.get(hex)
    if (known !== undefined) return known
    const reading = readFacts(pack)
    packs.set(hex, reading)
    reading.catch(() => packs.delete(hex))
    if (packs.size > PACKS_REMEMBERED) {
      const oldest = packs.keys().next().value
      if (oldest !== undefined) packs.delete(oldest)
    }
    return reading
  }

  async function readFacts(pack: Buffer): Promise<PackFacts> {
    const name = packKey(pack)
    const header = decodePackHeader(
      await store.get(name, { offset: 0, length: PACK_HEADER_BYTES }),
      name,
    )
    return { key: recordKey(keyring.byId(header.keyId, name), header.salt) }
  }

  function step(place: Entry): Entry {
    const moves = moved.get(place.pack.toString('hex'))
    if (moves === undefined) return place
    const move = moves.get(place.slot)
    if (move === undefined) {
      throw new Fault(
        VAULT_DAMAGED,
        `looking for chunk ${place.id.toString('hex')}: pack ${place.pack.toString('hex')} was rewritten without it`,
        { object: movesKey(place.pack), chunk: place.id.toString('hex') },
      )
    }
    return { ...move, id: place.id }
  }

  function locate(entry: Entry): Entry {
    for (let place = entry; ; ) {
      const next = step(place)
      if (next === place) return place
      place = next
    }
  }

  async function readMoves(pack: Buffer): Promise<boolean> {
    const name = movesKey(pack)
    try {
      const content = unsealWith(keyring, 'moves', name, await store.get(name))
      moved.set(pack.toString('hex'), decodeMoves(content, name))
      return true
    } catch (error) {
      if (isFault(error, OBJECT_MISSING)) return false
      throw error
    }
  }

  /** `missing` is thrown again when the pack was not rewritten, and so ought to be there. */
  async function learnMoves(pack: Buffer, missing: unknown): Promise<void> {
    if (!isFault(missing, OBJECT_MISSING) || !(await readMoves(pack))) throw missing
  }

  async function fetchRun(
    run: Run,
    entries: readonly Entry[],
    into: Buffer | undefined,
  ): Promise<Fetched> {
    try {
      const { key } = await factsOf(run.pack)
      const length = run.end - run.offset
      const piece = await store.get(packKey(run.pack), { offset: run.offset, length }, into)
      const items = run.members.map(({ entry, place }) => ({
        entry,
        key,
        flags: place.flags,
        piece: 0,
        offset: place.offset - run.offset,
        length: place.length,
      }))
      return { pieces: [piece], items }
    } catch (error) {
      await learnMoves(run.pack, error)
      const numbers = run.members.map(({ entry }) => entry)
      const again = await fetch(numbers.map((number) => entries[number] as Entry))
      const items = again.items.map((item) => ({ ...item, entry: numbers[item.entry] as number }))
      return { pieces: again.pieces, items }
    }
  }

  async function fetch(entries: readonly Entry[], into?: Buffer): Promise<Fetched> {
    const runs = plan(entries.map(locate))
    let used = 0
    const rooms = runs.map(({ offset, end }) => {
      // With the rest of its first page and of its last one.
      const bytes = wholePages(end - offset + 2 * DIRECT_BYTES)
      if (into === undefined || used + bytes > into.length) return undefined
      used += bytes
      return into.subarray(used - bytes, used)
    })
    // All of them to their end: a read that nobody waits for would write into memory that has gone to somebody else.
    const ends = await Promise.allSettled(runs.map((run, i) => fetchRun(run, entries, rooms[i])))
    const fetched = ends.map((end) => {
      if (end.status === 'rejected') throw end.reason
      return end.value
    })
    const pieces: Buffer[] = []
    const items: FetchedItem[] = []
    for (const one of fetched) {
      for (const item of one.items) items.push({ ...item, piece: item.piece + pieces.length })
      pieces.push(...one.pieces)
    }
    return { pieces, items }
  }

  return {
    fetch,
    locate,
    step,
    async read(entry, bytesMax) {
      const { pieces, items } = await fetch([entry])
      const item = items[0] as FetchedItem
      const piece = pieces[item.piece] as Buffer
      const record = piece.subarray(item.offset, item.offset + item.length)
      const chunk = openRecord(item.key, entry.id, item.flags, record, bytesMax)
      if (chunk === undefined) throw damagedChunk(locate(entry))
      return chunk
    },
    async follow(entry, present) {
      let place = locate(entry)
      while (!present.has(place.pack.toString('hex')) && (await readMoves(place.pack))) {
        place = locate(place)
      }
      return place
    },
  }
}

export function damagedChunk(entry: Entry): Fault {
  const what = (entry.flags & FLAG_NODE) === 0 ? 'block' : 'node'
  const object = packKey(entry.pack)
  const chunk = entry.id.toString('hex')
  return new Fault(VAULT_DAMAGED, `reading ${object}: record ${entry.slot} (${what} ${chunk})`, {
    object,
    kind: 'record',
    slot: entry.slot,
    chunk,
  })
}

interface Run {
  readonly pack: Buffer
  readonly offset: number
  end: number
  readonly members: { readonly entry: number; readonly place: Entry }[]
}

/** Neighbours in a pack become one read. */
export function plan(places: readonly Entry[]): Run[] {
  const sorted = places
    .map((place, entry) => ({ entry, place }))
    .toSorted((a, b) => a.place.pack.compare(b.place.pack) || a.place.offset - b.place.offset)
  const runs: Run[] = []
  for (const member of sorted) {
    const { pack, offset, length } = member.place
    const last = runs.at(-1)
    const joins =
      last?.pack.equals(pack) === true &&
      offset <= last.end + FETCH_GAP_MAX &&
      offset + length - last.offset <= FETCH_BYTES_MAX
    if (joins) {
      last.members.push(member)
      last.end = Math.max(last.end, offset + length)
    } else runs.push({ pack, offset, end: offset + length, members: [member] })
  }
  return runs
}
