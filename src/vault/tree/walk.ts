import {
  type Entry,
  ENTRY_BYTES,
  hasId,
  ID_BYTES,
  isZeroEntry,
  readEntry,
  zeroEntry,
} from '../format/entry.ts'
import { emptyNode, treeDepth } from '../format/node.ts'
import { NODE_ENTRIES } from '../limits.ts'

export interface VolumeTree {
  readonly root: Buffer
  readonly blocks: number
}

/** A run of blocks that read as zeroes, or one block with its entry. */
export type WalkedBlocks =
  | { readonly kind: 'zero'; readonly block: number; readonly count: number }
  | { readonly kind: 'data'; readonly block: number; readonly entry: Entry }

/** Goes through blocks `from` to `to` (not included) in order. Whole subtrees of zeroes are one item. */
export async function* walkBlocks(
  tree: VolumeTree,
  from: number,
  to: number,
  readNode: (entry: Entry, level: number) => Promise<Buffer>,
): AsyncGenerator<WalkedBlocks> {
  const end = Math.min(to, tree.blocks)
  yield* walk(tree.root, 0, treeDepth(tree.blocks), 0)

  /** The subtree of the entry at `at` of `node`: a block (level 0), or what a node of level - 1 covers. */
  async function* walk(
    node: Buffer,
    at: number,
    level: number,
    index: number,
  ): AsyncGenerator<WalkedBlocks> {
    const span = NODE_ENTRIES ** level
    const first = index * span
    if (first >= end || first + span <= from) return
    if (isZeroEntry(node, at)) {
      const block = Math.max(first, from)
      yield { kind: 'zero', block, count: Math.min(first + span, end) - block }
      return
    }
    const entry = readEntry(node, at)
    if (level === 0) {
      yield { kind: 'data', block: first, entry }
      return
    }
    const entries = await readNode(entry, level - 1)
    if (level === 1) {
      // Without a generator per block: this is the inner loop of every restore.
      const last = Math.min(NODE_ENTRIES, end - first)
      for (let i = Math.max(0, from - first); i < last; i++) {
        const place = i * ENTRY_BYTES
        if (isZeroEntry(entries, place)) yield { kind: 'zero', block: first + i, count: 1 }
        else yield { kind: 'data', block: first + i, entry: readEntry(entries, place) }
      }
      return
    }
    const below = span / NODE_ENTRIES
    const low = Math.max(0, Math.floor((from - first) / below))
    const high = Math.min(NODE_ENTRIES, Math.ceil((end - first) / below))
    for (let i = low; i < high; i++) {
      yield* walk(entries, i * ENTRY_BYTES, level - 1, index * NODE_ENTRIES + i)
    }
  }
}

/** Visits every node and block entry of a tree once. `enter` answers whether to go below a node. */
export async function visitTree(
  tree: VolumeTree,
  visit: {
    readonly readNode: (entry: Entry, level: number) => Promise<Buffer | undefined>
    /** Of a node at `level`, or a block (level -1). `first` is its first block. */
    readonly enter: (entry: Entry, level: number, first: number) => boolean | Promise<boolean>
  },
): Promise<void> {
  async function go(node: Buffer, at: number, level: number, index: number): Promise<void> {
    if (isZeroEntry(node, at)) return
    const entry = readEntry(node, at)
    const enter = await visit.enter(entry, level - 1, index * NODE_ENTRIES ** level)
    if (level === 0 || !enter) return
    const entries = await visit.readNode(entry, level - 1)
    if (entries === undefined) return
    for (let i = 0; i < NODE_ENTRIES; i++) {
      const place = i * ENTRY_BYTES
      if (isZeroEntry(entries, place)) continue
      if (level === 1) await visit.enter(readEntry(entries, place), -1, index * NODE_ENTRIES + i)
      else await go(entries, place, level - 1, index * NODE_ENTRIES + i)
    }
  }
  await go(tree.root, 0, treeDepth(tree.blocks), 0)
}

/** Goes through the blocks in which `tree` differs from `base`, without reading what both share. Equal blocks may come along where a collector has
 *  rewritten nodes; blocks beyond the end of `base` come all, as far as they are not zero. */
export async function* walkChanges(
  tree: VolumeTree,
  base: VolumeTree,
  readNode: (entry: Entry, level: number) => Promise<Buffer>,
): AsyncGenerator<WalkedBlocks> {
  const depth = treeDepth(tree.blocks)
  const baseDepth = treeDepth(base.blocks)
  yield* walk(tree.root, 0, depth, 0, baseDepth === depth ? base.root : zeroEntry())

  async function* walk(
    node: Buffer,
    at: number,
    level: number,
    index: number,
    other: Buffer,
  ): AsyncGenerator<WalkedBlocks> {
    const first = index * NODE_ENTRIES ** level
    if (first >= tree.blocks) return
    // Where the base's own root belongs, in a tree that has more levels.
    const old = level === baseDepth && index === 0 && baseDepth < depth ? base.root : other
    const zero = isZeroEntry(node, at)
    if (zero && isZeroEntry(old, 0)) return
    if (!zero && hasId(old, 0, node.subarray(at, at + ID_BYTES))) return
    if (level === 0) {
      if (zero) yield { kind: 'zero', block: first, count: 1 }
      else yield { kind: 'data', block: first, entry: readEntry(node, at) }
      return
    }
    const entries = zero ? emptyNode() : await readNode(readEntry(node, at), level - 1)
    const before = isZeroEntry(old, 0) ? emptyNode() : await readNode(readEntry(old, 0), level - 1)
    for (let i = 0; i < NODE_ENTRIES; i++) {
      const place = i * ENTRY_BYTES
      yield* walk(
        entries,
        place,
        level - 1,
        index * NODE_ENTRIES + i,
        before.subarray(place, place + ENTRY_BYTES),
      )
    }
  }
}
