import { assert } from '#base/assert.ts'
import {
  type Entry,
  ENTRY_BYTES,
  hasId,
  isZeroEntry,
  readEntry,
  writeEntry,
  writeZeroEntry,
  zeroEntry,
} from '../format/entry.ts'
import { emptyNode, encodeNode, treeDepth } from '../format/node.ts'
import { NODE_ENTRIES } from '../limits.ts'

/* Builds the tree of a volume from the blocks that are set, keeping one open node per level: memory does not grow with the volume. What
 * is not set stays as in the parent's tree, whose nodes are shared as long as nothing below them changes.
 *
 * Going from block to block closes nodes on the way up and opens others on the way down; a closed node that changed becomes a
 * chunk, and its entry goes into the node above. Blocks may come in any order; rising order closes each node once. */

export interface TreeBuilderSetup {
  readonly blocks: number
  /** Root and size in blocks of the tree to begin from. */
  readonly parent?: { readonly root: Buffer; readonly blocks: number }
  readNode(entry: Entry, level: number): Promise<Buffer>
  /** Stores a node as a chunk, or finds it. */
  putNode(bytes: Buffer, level: number): Entry
}

export interface TreeBuilder {
  /** Opens the node that holds the entry of a block. `set`, `zero` and `holds` then work on blocks of this node. */
  seek(block: number): Promise<void>
  /** Whether the block is in this state already. */
  holds(block: number, id: Buffer): boolean
  holdsZero(block: number): boolean
  set(block: number, entry: Entry): void
  zero(block: number): void
  /** Blocks [first, end). Where the tree has nothing, no node is opened: a hole of terabytes takes milliseconds. */
  zeroRun(first: number, end: number): Promise<void>
  /** The entry of the root. The builder must not be used any more. */
  finish(): Promise<Buffer>
}

interface OpenNode {
  readonly index: number
  /** Own copy of the entries, made at the first change. */
  entries: Buffer
  changed: boolean
}

export function createTreeBuilder(setup: TreeBuilderSetup): TreeBuilder {
  const depth = treeDepth(setup.blocks)
  const open: (OpenNode | undefined)[] = Array.from({ length: depth }, () => undefined)
  const { parent } = setup
  const parentDepth = parent === undefined ? 0 : treeDepth(parent.blocks)
  assert(parent === undefined || parent.blocks <= setup.blocks, 'a volume does not shrink')
  let started = false

  /** The root, and when the volume has outgrown its parent's tree also the new levels above that. */
  async function start(): Promise<void> {
    started = true
    if (parent === undefined || isZeroEntry(parent.root, 0)) {
      open[depth - 1] = { index: 0, entries: emptyNode(), changed: false }
      return
    }
    if (parentDepth === depth) {
      const entries = await setup.readNode(readEntry(parent.root, 0), depth - 1)
      open[depth - 1] = { index: 0, entries, changed: false }
      return
    }
    for (let level = depth - 1; level >= parentDepth; level--) {
      open[level] = { index: 0, entries: emptyNode(), changed: true }
    }
    const lowest = open[parentDepth]
    assert(lowest !== undefined, 'the level above the old root is open')
    parent.root.copy(lowest.entries, 0)
  }

  function change(node: OpenNode): Buffer {
    if (!node.changed) {
      node.entries = Buffer.from(node.entries)
      node.changed = true
    }
    return node.entries
  }

  function close(level: number): void {
    const node = open[level]
    if (node === undefined) return
    if (level > 0) close(level - 1)
    open[level] = undefined
    if (!node.changed) return
    const above = open[level + 1]
    assert(above !== undefined, 'a node is closed before the one above it')
    const at = (node.index % NODE_ENTRIES) * ENTRY_BYTES
    const entry = entryOf(node.entries, level)
    if (above.entries.compare(entry, 0, ENTRY_BYTES, at, at + ENTRY_BYTES) !== 0) {
      entry.copy(change(above), at)
    }
  }

  function entryOf(entries: Buffer, level: number): Buffer {
    if (isEmpty(entries)) return zeroEntry()
    const bytes = Buffer.alloc(ENTRY_BYTES)
    writeEntry(bytes, 0, setup.putNode(encodeNode(entries, level), level))
    return bytes
  }

  async function descend(level: number, index: number): Promise<void> {
    if (open[level]?.index === index) return
    const above = level + 1
    if (above < depth) await descend(above, Math.floor(index / NODE_ENTRIES))
    close(level)
    const parentNode = open[above]
    assert(parentNode !== undefined, 'the root is always open')
    const at = (index % NODE_ENTRIES) * ENTRY_BYTES
    const entries = isZeroEntry(parentNode.entries, at)
      ? emptyNode()
      : await setup.readNode(readEntry(parentNode.entries, at), level)
    open[level] = { index, entries, changed: false }
  }

  function page(block: number): OpenNode {
    const node = open[0]
    assert(node?.index === Math.floor(block / NODE_ENTRIES), 'seek comes before')
    return node
  }

  const placeOf = (block: number): number => (block % NODE_ENTRIES) * ENTRY_BYTES

  async function seek(block: number): Promise<void> {
    assert(block >= 0 && block < setup.blocks, 'the block lies in the volume')
    if (!started) await start()
    await descend(0, Math.floor(block / NODE_ENTRIES))
  }

  /** Whether all blocks of a leaf are zero, told by the node above it. */
  async function leafIsZero(index: number): Promise<boolean> {
    if (!started) await start()
    if (depth === 1 || open[0]?.index === index) return false
    await descend(1, Math.floor(index / NODE_ENTRIES))
    const above = open[1]
    assert(above !== undefined, 'the node above was opened')
    return isZeroEntry(above.entries, (index % NODE_ENTRIES) * ENTRY_BYTES)
  }

  return {
    seek,
    async zeroRun(first, end) {
      assert(first >= 0 && end <= setup.blocks, 'the blocks lie in the volume')
      for (let block = first; block < end; ) {
        const index = Math.floor(block / NODE_ENTRIES)
        const next = Math.min(end, (index + 1) * NODE_ENTRIES)
        if (!(await leafIsZero(index))) {
          await seek(block)
          for (let one = block; one < next; one++) {
            if (isZeroEntry(page(one).entries, placeOf(one))) continue
            writeZeroEntry(change(page(one)), placeOf(one))
          }
        }
        block = next
      }
    },
    holds: (block, id) => hasId(page(block).entries, placeOf(block), id),
    holdsZero: (block) => isZeroEntry(page(block).entries, placeOf(block)),
    set(block, entry) {
      writeEntry(change(page(block)), placeOf(block), entry)
    },
    zero(block) {
      writeZeroEntry(change(page(block)), placeOf(block))
    },
    async finish() {
      if (!started) await start()
      if (depth > 1) close(depth - 2)
      const root = open[depth - 1]
      assert(root !== undefined, 'the root is always open')
      const kept = parent !== undefined && parentDepth === depth && !root.changed
      return kept ? Buffer.from(parent.root) : entryOf(root.entries, depth - 1)
    },
  }
}

const EMPTY = emptyNode()
const isEmpty = (entries: Buffer): boolean => entries.equals(EMPTY)
