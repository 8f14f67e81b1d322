import { assert } from '#base/assert.ts'
import { NODE_ENTRIES } from '../limits.ts'
import { ENTRY_BYTES, ID_BYTES, isZeroEntry, PACK_ID_BYTES, writeZeroEntry } from './entry.ts'

/* A volume at a checkpoint is a tree of nodes with 1024 entries each. Entries of level 0 are blocks, those of level n are nodes of level
 * n-1. Its depth follows from the size of the volume alone, so a block's path needs no search, and a change rewrites one node per level.
 *
 * In memory a node is 1024 entries in full; stored it names each pack once and leaves out the zero entries at its end. */

const VERSION = 1
const HEADER_BYTES = 8
const STORED_ENTRY_BYTES = 44
const NO_PACK = 0xffff

export class NodeUnreadable extends Error {
  override readonly name = 'NodeUnreadable'
}

export function emptyNode(): Buffer {
  const node = Buffer.alloc(NODE_ENTRIES * ENTRY_BYTES)
  for (let i = 0; i < NODE_ENTRIES; i++) writeZeroEntry(node, i * ENTRY_BYTES)
  return node
}

/** Levels of nodes above the blocks: 1 for up to 1024 blocks, 2 up to a million ... */
export function treeDepth(blocks: number): number {
  let depth = 1
  for (let reach = NODE_ENTRIES; reach < blocks; reach *= NODE_ENTRIES) depth++
  return depth
}

export function encodeNode(node: Buffer, level: number): Buffer {
  assert(node.length === NODE_ENTRIES * ENTRY_BYTES, 'a node has all its entries')
  let count = NODE_ENTRIES
  while (count > 0 && isZeroEntry(node, (count - 1) * ENTRY_BYTES)) count--
  const packs = new Map<string, number>()
  const entries = Buffer.alloc(count * STORED_ENTRY_BYTES)
  for (let i = 0; i < count; i++) {
    const from = i * ENTRY_BYTES
    const to = i * STORED_ENTRY_BYTES
    node.copy(entries, to, from, from + ID_BYTES)
    if (isZeroEntry(node, from)) entries.writeUInt16BE(NO_PACK, to + ID_BYTES)
    else {
      const pack = node.toString('latin1', from + ID_BYTES, from + ID_BYTES + PACK_ID_BYTES)
      let index = packs.get(pack)
      if (index === undefined) packs.set(pack, (index = packs.size))
      entries.writeUInt16BE(index, to + ID_BYTES)
    }
    node.copy(entries, to + ID_BYTES + 2, from + ID_BYTES + PACK_ID_BYTES, from + ENTRY_BYTES)
  }
  const header = Buffer.alloc(HEADER_BYTES)
  header.writeUInt8(VERSION, 0)
  header.writeUInt8(level, 1)
  header.writeUInt16BE(packs.size, 2)
  header.writeUInt16BE(count, 4)
  return Buffer.concat([
    header,
    ...[...packs.keys()].map((pack) => Buffer.from(pack, 'latin1')),
    entries,
  ])
}

/** Throws NodeUnreadable when it is not a whole node of this level. */
export function decodeNode(bytes: Buffer, level: number): Buffer {
  if (bytes.length < HEADER_BYTES || bytes[0] !== VERSION || bytes[1] !== level) {
    throw new NodeUnreadable(`not a node of level ${level}`)
  }
  const packs = bytes.readUInt16BE(2)
  const count = bytes.readUInt16BE(4)
  const first = HEADER_BYTES + packs * PACK_ID_BYTES
  if (count > NODE_ENTRIES || bytes.length !== first + count * STORED_ENTRY_BYTES) {
    throw new NodeUnreadable('the node has another length than it says')
  }
  const node = emptyNode()
  for (let i = 0; i < count; i++) {
    const from = first + i * STORED_ENTRY_BYTES
    const pack = bytes.readUInt16BE(from + ID_BYTES)
    if (pack === NO_PACK) continue
    if (pack >= packs) throw new NodeUnreadable('an entry names a pack that the node has not')
    const to = i * ENTRY_BYTES
    const packAt = HEADER_BYTES + pack * PACK_ID_BYTES
    bytes.copy(node, to, from, from + ID_BYTES)
    bytes.copy(node, to + ID_BYTES, packAt, packAt + PACK_ID_BYTES)
    bytes.copy(node, to + ID_BYTES + PACK_ID_BYTES, from + ID_BYTES + 2, from + STORED_ENTRY_BYTES)
    if (isZeroEntry(node, to)) throw new NodeUnreadable('a zero entry names a pack')
  }
  return node
}
