import { Fault } from '#base/fault.ts'
import { VAULT_DAMAGED } from '../faults.ts'
import { type Entry, ENTRY_BYTES, PACK_ID_BYTES } from '../format/entry.ts'
import { decodeNode, NodeUnreadable } from '../format/node.ts'
import { packKey } from '../format/pack.ts'
import { NODE_CACHE, NODE_ENTRIES } from '../limits.ts'
import type { ChunkSource } from '../chunks/chunk-source.ts'

/** Longest a stored node can be: header, and for each entry a pack of its own. */
export const NODE_BYTES_MAX = 8 + NODE_ENTRIES * (ENTRY_BYTES + PACK_ID_BYTES)

export interface NodeReader {
  /** The entries of a node. Shared: do not change it. */
  read(entry: Entry, level: number): Promise<Buffer>
}

/** Keeps the nodes used last. */
export function createNodeReader(source: ChunkSource, cached = NODE_CACHE): NodeReader {
  const cache = new Map<string, Promise<Buffer>>()
  return {
    read(entry, level) {
      const name = `${level}${entry.id.toString('latin1')}`
      const known = cache.get(name)
      if (known !== undefined) {
        cache.delete(name)
        cache.set(name, known)
        return known
      }
      const reading = readNode(source, entry, level)
      cache.set(name, reading)
      reading.catch(() => cache.delete(name))
      if (cache.size > cached) cache.delete(cache.keys().next().value as string)
      return reading
    },
  }
}

export async function readNode(source: ChunkSource, entry: Entry, level: number): Promise<Buffer> {
  const bytes = await source.read(entry, NODE_BYTES_MAX)
  try {
    return decodeNode(bytes, level)
  } catch (error) {
    if (!(error instanceof NodeUnreadable)) throw error
    const object = packKey(entry.pack)
    throw new Fault(
      VAULT_DAMAGED,
      `reading a node in ${object}: ${error.message}`,
      { object, kind: 'node', slot: entry.slot, chunk: entry.id.toString('hex') },
      error,
    )
  }
}
