import { assert } from '#base/assert.ts'
import type { Entry } from '../format/entry.ts'
import { FOOTER_ENTRY_BYTES } from '../format/pack.ts'

/* Which chunks the vault holds, and where: open addressing in shared memory, 32 bytes a slot, keyed by the first 16 bytes of the id.
 * The main thread writes; threads that hash only look whether a chunk is there, and nothing bad follows from a wrong answer: what is wrongly
 * called absent is made again and thrown away, what is wrongly called present is looked up again by the main thread.
 *
 * Bounded: at its limit it takes no more, and the rest of the vault's chunks are stored again when they come up. */

const WORDS = 8
/** Of an id, as much as is kept of it. */
const ID_WORDS = 4
const FULL = 0.75
const PACK = 4
const SLOT_AND_FLAGS = 5
const OFFSET = 6
const LENGTH = 7

export interface KnownTable {
  /** For the threads. */
  readonly memory: SharedArrayBuffer
  readonly size: number
  has(id: Buffer): boolean
  find(id: Buffer): Entry | undefined
  /** False: there already, or the table is full. */
  insert(entry: Entry): boolean
  /** All records of a pack, as they are encoded in its footer, until the table is full. A vault has many, so nothing is made for each. */
  insertPack(pack: Buffer, list: Buffer): void
}

/** `grown`: told when the memory was replaced by a larger one. */
export function createKnownTable(
  slotsMax: number,
  expected: number,
  grown: (memory: SharedArrayBuffer) => void,
): KnownTable {
  const packs: Buffer[] = []
  const packNumbers = new Map<string, number>()
  let slots = 1024
  while (slots * FULL < expected && slots < slotsMax) slots *= 2
  let memory = new SharedArrayBuffer(slots * WORDS * 4)
  let words = new Uint32Array(memory)
  let size = 0
  const id4 = new Uint32Array(ID_WORDS)

  function packNumber(pack: Buffer): number {
    const name = pack.toString('latin1')
    const known = packNumbers.get(name)
    if (known !== undefined) return known
    packs.push(Buffer.from(pack))
    // From 1: zero marks a free slot.
    packNumbers.set(name, packs.length)
    return packs.length
  }

  function grow(): void {
    const old = words
    slots *= 2
    memory = new SharedArrayBuffer(slots * WORDS * 4)
    words = new Uint32Array(memory)
    for (let from = 0; from < old.length; from += WORDS) {
      if (old[from + PACK] === 0) continue
      let at = ((old[from] as number) & (slots - 1)) * WORDS
      while (words[at + PACK] !== 0) at = (at + WORDS) % words.length
      words.set(old.subarray(from, from + WORDS), at)
    }
    grown(memory)
  }

  /** Of the chunk whose first words are in `id4`. */
  function add(pack: number, slotAndFlags: number, offset: number, length: number): boolean {
    if (size >= slots * FULL) {
      if (slots >= slotsMax) return false
      grow()
    }
    const a = id4[0] as number
    const b = id4[1]
    const c = id4[2]
    const d = id4[3]
    let at = (a & (slots - 1)) * WORDS
    while (words[at + PACK] !== 0) {
      const same = words[at] === a && words[at + 1] === b && words[at + 2] === c
      if (same && words[at + 3] === d) return false
      at = (at + WORDS) % words.length
    }
    words.set(id4, at)
    words[at + SLOT_AND_FLAGS] = slotAndFlags
    words[at + OFFSET] = offset
    words[at + LENGTH] = length
    words[at + PACK] = pack
    size++
    return true
  }

  return {
    get memory() {
      return memory
    },
    get size() {
      return size
    },
    has: (id) => findSlot(words, id) >= 0,
    find(id) {
      const at = findSlot(words, id)
      if (at < 0) return undefined
      const pack = packs[(words[at + PACK] as number) - 1]
      assert(pack !== undefined, 'the table names packs that it knows')
      const both = words[at + SLOT_AND_FLAGS] as number
      return {
        id,
        pack,
        slot: both & 0xffff,
        offset: words[at + OFFSET] as number,
        length: words[at + LENGTH] as number,
        flags: both >>> 16,
      }
    },
    insert({ id, pack, slot, offset, length, flags }) {
      for (let i = 0; i < ID_WORDS; i++) id4[i] = id.readUInt32LE(i * 4)
      return add(packNumber(pack), slot | (flags << 16), offset, length)
    },
    insertPack(pack, list) {
      const number = packNumber(pack)
      const source = wordsOf(list)
      const step = FOOTER_ENTRY_BYTES / 4
      for (let slot = 0, at = 0; at < source.length; slot++, at += step) {
        for (let i = 0; i < ID_WORDS; i++) id4[i] = source[at + i] as number
        const offset = turned(source[at + step - 2] as number)
        const last = turned(source[at + step - 1] as number)
        add(number, slot | ((last & 0xff) << 16), offset, last >>> 8)
      }
    },
  }
}

/** As words of this machine, which is one with the low byte first. */
function wordsOf(bytes: Buffer): Uint32Array {
  const whole = bytes.byteOffset % 4 === 0 ? bytes : Buffer.from(bytes)
  return new Uint32Array(whole.buffer, whole.byteOffset, whole.length / 4)
}

/** A word with the high byte first. */
const turned = (word: number): number =>
  ((word << 24) | ((word & 0xff00) << 8) | ((word >>> 8) & 0xff00) | (word >>> 24)) >>> 0

/** First word of the slot that holds `id`, or -1. */
export function findSlot(words: Uint32Array, id: Buffer): number {
  const slots = words.length / WORDS
  let at = (id.readUInt32LE(0) & (slots - 1)) * WORDS
  while (words[at + PACK] !== 0) {
    if (sameId(words, at, id)) return at
    at = (at + WORDS) % words.length
  }
  return -1
}

const sameId = (words: Uint32Array, at: number, id: Buffer): boolean =>
  words[at] === id.readUInt32LE(0) &&
  words[at + 1] === id.readUInt32LE(4) &&
  words[at + 2] === id.readUInt32LE(8) &&
  words[at + 3] === id.readUInt32LE(12)
