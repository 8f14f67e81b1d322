import { randomBytes } from 'node:crypto'
import { openFetched } from '#vault/chunks/open-fetched.ts'
import { createPool, type ThreadPool } from '#vault/chunks/pool.ts'
import type { Fetched } from '#vault/chunks/chunk-source.ts'
import { readResult, STORED } from '#vault/chunks/thread-protocol.ts'
import { blockNaming, type DataKey } from '#vault/keys/keyring.ts'
import type { Entry } from '#vault/format/entry.ts'

/* Compresses blocks once more and better, for the way over a slow line. Sealed under a key of its own that is drawn for this transfer and told with the
 * records. In threads: this costs some milliseconds per block. */

/** zstd; 1 is what the vault itself uses. */
const LEVEL = 9

export interface SentRecord {
  readonly key: Buffer
  readonly flags: number
  readonly bytes: Buffer
}

export interface Stronger {
  /** In the order of the entries, whose blocks have these lengths; undefined where that cannot be done. At most `blocksMax` of them. */
  again(
    entries: readonly Entry[],
    lengths: readonly number[],
    fetched: Fetched,
  ): Promise<(SentRecord | undefined)[]>
  readonly blocksMax: number
  close(): void
}

export function stronger(blockBytes: number, naming: DataKey, threads: number): Stronger {
  const key = randomBytes(32)
  const pool: ThreadPool = createPool({
    blockBytes,
    level: LEVEL,
    naming: blockNaming(naming),
    recordKey: key,
    threads,
    inlineBatches: 0,
  })
  return {
    blocksMax: pool.blocksPerBatch,
    async again(entries, lengths, fetched) {
      const batch = await pool.acquire()
      try {
        const bad = new Set(await openFetched(pool, batch, entries, fetched))
        await pool.seal(batch, lengths)
        return entries.map(({ id }, i) => {
          const result = readResult(batch.results, i)
          const { state, flags, offset, length } = result
          // A name of another vault's key: the record goes as it is stored.
          if (bad.has(i) || state !== STORED || !result.id.equals(id)) return undefined
          return { key, flags, bytes: Buffer.from(batch.output.subarray(offset, offset + length)) }
        })
      } finally {
        pool.release(batch)
      }
    },
    close: () => pool.close(),
  }
}
