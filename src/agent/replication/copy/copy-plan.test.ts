import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { BLOCKS_PER_REGION, type Changes } from '#wire/link/changes.ts'
import { BLOCK_BYTES } from '#wire/link/frame.ts'
import type { Extent } from '#agent/volumes/volume.ts'
import type { OpenMember } from '../members.ts'
import type { PeerQueries } from '../peer-queries.ts'
import type { WriterMember } from '../writer/writer.ts'
import type { BlockSet } from './block-set.ts'
import type { ChangeMapTrust } from './change-map.ts'
import { planBlank, planDelta } from './copy-plan.ts'
import { CopyTodo } from './copy-todo.ts'

/** Three regions, the last of which ends in its second block. */
const BLOCKS = 2 * BLOCKS_PER_REGION + 2
const SIZE = BLOCKS * BLOCK_BYTES - 512

interface Known {
  readonly trust?: ChangeMapTrust
  /** Blocks of the writer's change map, and regions of its intent bitmap. */
  readonly ours?: readonly number[]
  readonly intent?: readonly number[]
  /** The same of the replica; null: everything may differ. */
  readonly theirs?: readonly number[]
  readonly compare?: readonly number[] | null
  readonly regions?: boolean
  readonly asks?: boolean
}

async function plan(known: Known) {
  const { trust = 'exact', ours = [], intent = [], theirs = [], compare = [] } = known
  const todo = new CopyTodo(SIZE)
  const asked: [number, number][] = []
  const complete = await planDelta({
    member: { index: 1, volume: { sizeBytes: SIZE }, todo } as unknown as WriterMember,
    own: {
      changes: {
        trust: (base: number) => (base === 5 ? trust : 'damaged'),
        addTo: (set: BlockSet) => {
          for (const block of ours) set.add(block)
        },
      },
      intent: { regions: 3, has: (region: number) => intent.includes(region) },
    } as unknown as OpenMember,
    queries: {
      changes: async (_: number, first: number, regions: number): Promise<Changes | null> => {
        asked.push([first, regions])
        if (compare === null) return null
        return { send: bits(theirs, regions * BLOCKS_PER_REGION), compare: bits(compare, regions) }
      },
    } as unknown as PeerQueries,
    baseEpoch: 5,
    regions: known.regions ?? false,
    asks: known.asks ?? true,
  })
  return { complete, asked, send: blocks(todo.send), compare: blocks(todo.compare) }
}

function bits(set: readonly number[], count: number): Uint8Array {
  const bytes = new Uint8Array(Math.ceil(count / 8))
  for (const one of set) bytes[one >> 3] = (bytes[one >> 3] as number) | (1 << (one & 7))
  return bytes
}

const blocks = (set: BlockSet): number[] =>
  Array.from({ length: BLOCKS }, (_, block) => block).filter((block) => set.has(block))
const region = (number: number): number[] =>
  Array.from({ length: BLOCKS_PER_REGION }, (_, i) => number * BLOCKS_PER_REGION + i).filter(
    (block) => block < BLOCKS,
  )
const everything = [...region(0), ...region(1), ...region(2)]

describe('a delta', () => {
  test('is what either side has changed, and nothing else', async () => {
    const found = await plan({ ours: [1, 129], theirs: [1, 70], intent: [0] })
    assert.deepEqual(found, {
      complete: true,
      asked: [[0, 3]],
      send: [1, 70, 129],
      compare: [],
    })
  })

  test('compares the regions that the replica names, but for what is known to have changed', async () => {
    const found = await plan({ ours: [129], compare: [0, 2] })
    assert.deepEqual([found.send, found.compare], [[129], [...region(0), 128]])
  })

  test('compares the intent regions of a writer whose map is of another boot, and takes nothing from that map', async () => {
    const found = await plan({ trust: 'other_boot', ours: [1], intent: [1, 2], theirs: [3] })
    assert.deepEqual([found.send, found.compare], [[3], [...region(1), ...region(2)]])
  })

  test('compares the intent regions also beside an exact map, after a loss of power at the replica', async () => {
    const found = await plan({ ours: [1, 65], intent: [1], regions: true })
    const rest = region(1).filter((block) => block !== 65)
    assert.deepEqual([found.send, found.compare], [[1, 65], rest])
  })

  for (const [what, known] of [
    ['whose map is damaged', { trust: 'damaged', ours: [1] }],
    ['whose replica cannot say what it has changed', { asks: false }],
    ['whose replica does not know what it has changed', { compare: null }],
  ] as const) {
    test(`of a member ${what} is everything`, async () => {
      const found = await plan(known)
      assert.equal(found.complete, false)
      assert.deepEqual(
        [...found.send, ...found.compare].sort((a, b) => a - b),
        everything,
      )
    })
  }
})

test('a first copy to one hole looks at all data of the volume, however many pieces it has', async () => {
  // As a volume that is asked for some extents at a time answers: data in every third block.
  const todo = new CopyTodo(SIZE)
  const isHole = (block: number) => block % 3 !== 0
  const member = {
    todo,
    volume: {
      sizeBytes: SIZE,
      extents: async (offset: number, length: number): Promise<readonly Extent[]> => {
        const found: Extent[] = []
        for (let at = offset; at < offset + length && found.length < 7; ) {
          const end = Math.min((Math.floor(at / BLOCK_BYTES) + 1) * BLOCK_BYTES, offset + length)
          found.push({ offset: at, length: end - at, hole: isHole(Math.floor(at / BLOCK_BYTES)) })
          at = end
        }
        return found
      },
    },
  } as unknown as WriterMember
  await planBlank(member)
  assert.deepEqual(
    blocks(todo.compare),
    everything.filter((block) => !isHole(block)),
  )
})
