import type { Clock } from '#base/clock.ts'
import type { ExportTable } from '#agent/nbd/exports.ts'
import { Bucket, type Limit } from '#agent/nbd/throttle.ts'
import type { VolumeLimit, VolumeRecord, VolumeStore } from '#agent/volumes/volume-store.ts'
import type { CommandAnswer, CommandRequest } from '#wire/site/commands.ts'

/* Limits of the volumes of this site, from the order of the control plane to the exports.
 *
 * Kept with the volume before they are in force, so that a restart knows them without asking. A volume in a session is exported under its own name
 * and its pair's; both draw from one bucket.
 */

export interface VolumeLimits {
  set(request: CommandRequest<'volume.limit'>): Promise<CommandAnswer<'volume.limit'>>
}

export function volumeLimits(parts: {
  readonly volumes: VolumeStore
  readonly exports: ExportTable
  readonly clock: Clock
}): VolumeLimits {
  const { volumes, exports, clock } = parts
  /** By volume. */
  const buckets = new Map<string, Bucket>()

  function keep({ id, limit }: VolumeRecord): void {
    const known = buckets.get(id)
    if (limit === undefined) return
    if (known === undefined) buckets.set(id, new Bucket(clock, ratesOf(limit)))
    else known.limit = ratesOf(limit)
  }

  for (const record of volumes.list()) keep(record)

  exports.limitBy((name) => {
    if (buckets.size === 0) return undefined
    return buckets.get(volumes.record(name)?.id ?? volumeOfPair(name) ?? '')
  })

  const volumeOfPair = (pair: string): string | undefined =>
    volumes.list().find(({ serving }) => serving.mode === 'session' && serving.pair === pair)?.id

  async function setOne(id: string, limit: VolumeLimit): Promise<void> {
    const record = await volumes.setLimit(id, limit)
    keep(record)
    const { serving } = record
    exports.relimit(serving.mode === 'session' ? [id, serving.pair] : [id])
  }

  return {
    async set({ limits }) {
      for (const id of buckets.keys()) if (volumes.record(id) === undefined) buckets.delete(id)
      const unknown: string[] = []
      const newer: { volume: string; revision: number }[] = []
      for (const { volume, revision, iops, bytes_per_second, read_only } of limits) {
        const record = volumes.record(volume)
        if (record === undefined) {
          unknown.push(volume)
          continue
        }
        const held = record.limit?.revision ?? -1
        const limit = { revision, iops, bytesPerSecond: bytes_per_second, readOnly: read_only }
        if (held > revision) newer.push({ volume, revision: held })
        // Most volumes never have a limit: to say so again is no reason to write.
        else if (held < revision && (record.limit !== undefined || !isNone(limit))) {
          await setOne(volume, limit)
        }
      }
      return { unknown, newer }
    },
  }
}

const ratesOf = ({ iops, bytesPerSecond, readOnly }: VolumeLimit): Limit => ({
  iops,
  bytesPerSecond,
  readOnly,
})

const isNone = ({ iops, bytesPerSecond, readOnly }: VolumeLimit): boolean =>
  iops === null && bytesPerSecond === null && !readOnly
