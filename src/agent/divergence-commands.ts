import { Fault } from '#base/fault.ts'
import type { CommandAnswer, CommandRequest } from '#wire/site/commands.ts'
import type { DivergenceInfo } from '#wire/site/snapshots.ts'
import { DIVERGENCE_UNKNOWN } from '#agent/divergence/faults.ts'
import type { Divergences } from '#agent/divergence/divergences.ts'
import type { StoredRecord } from '#agent/divergence/record.ts'

/* The control plane's way to divergence records. Each names the owner on whose behalf it is asked; records of others do not exist for it. */

export interface DivergenceCommands {
  list(request: CommandRequest<'divergence.list'>): CommandAnswer<'divergence.list'>
  show(request: CommandRequest<'divergence.show'>): CommandAnswer<'divergence.show'>
  read(request: CommandRequest<'divergence.read'>): Promise<CommandAnswer<'divergence.read'>>
  delete(request: CommandRequest<'divergence.delete'>): Promise<Record<string, never>>
}

export function divergenceCommands(divergences: Divergences): DivergenceCommands {
  function own(id: string, owner: string): StoredRecord {
    const record = divergences.show(id)
    if (record === undefined || record.owner !== owner) {
      throw new Fault(DIVERGENCE_UNKNOWN, `divergence ${id}`)
    }
    return record
  }

  return {
    list({ owner, session }) {
      const found = divergences
        .list()
        .filter((one) => one.owner === owner && (session === undefined || one.session === session))
      return { divergences: found.map(infoOf) }
    },
    show({ divergence, owner, volume, from, limit }) {
      const record = own(divergence, owner)
      const ranges = divergences
        .ranges(divergence, volume)
        .filter((range) => range.offset >= from)
        .slice(0, limit)
        .map(({ offset, length }) => ({ offset, length }))
      return { divergence: infoOf(record), ranges }
    },
    async read({ divergence, owner, volume, offset, length }) {
      own(divergence, owner)
      const data = await divergences.read(divergence, volume, offset, length)
      return { data: data.toString('base64') }
    },
    async delete({ divergence, owner }) {
      if (divergences.show(divergence) === undefined) return {}
      own(divergence, owner)
      await divergences.delete(divergence)
      return {}
    },
  }
}

const infoOf = (record: StoredRecord): DivergenceInfo => ({
  divergence: record.divergence,
  session: record.session,
  site: record.site,
  winner: record.winner,
  base_epoch: record.base_epoch,
  epoch: record.epoch,
  at: record.at,
  why: record.why,
  state: record.state,
  reason: record.reason,
  volumes: record.volumes.map(({ volume, pair, size_bytes, ranges, bytes }) => ({
    volume,
    pair,
    size_bytes,
    ranges,
    bytes,
  })),
})
