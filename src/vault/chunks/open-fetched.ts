import { assert } from '#base/assert.ts'
import type { Entry } from '../format/entry.ts'
import type { Fetched } from './chunk-source.ts'
import type { Batch, ThreadPool } from './pool.ts'

/** Opens records that were fetched, each into the batch's block of its entry's number. Answers the numbers of the entries whose record did not open. */
export async function openFetched(
  pool: ThreadPool,
  batch: Batch,
  entries: readonly Entry[],
  { pieces, items }: Fetched,
): Promise<readonly number[]> {
  // Neighbours mostly have one key.
  const keys = [...new Set(items.map(({ key }) => key))]
  const entryOf = (number: number): Entry => {
    const entry = entries[number]
    assert(entry !== undefined, 'what was fetched is of the entries')
    return entry
  }
  const damaged = await pool.open(batch, {
    pieces,
    keys,
    items: items.map((item) => ({
      id: entryOf(item.entry).id,
      key: keys.indexOf(item.key),
      flags: item.flags,
      piece: item.piece,
      offset: item.offset,
      length: item.length,
      block: item.entry,
    })),
  })
  return damaged.flatMap((number) => items[number]?.entry ?? [])
}
