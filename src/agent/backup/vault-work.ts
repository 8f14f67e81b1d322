import type { Clock } from '#base/clock.ts'
import type { Log } from '#base/log.ts'
import { checkpointIdOf } from '#vault/format/manifest.ts'
import type { VerifyReport } from '#vault/verify/verify.ts'
import {
  type CollectInfo,
  VAULT_DAMAGES_MAX,
  type VaultVerifyInfo,
  type VaultVerifyRequest,
} from '#wire/site/backups.ts'
import { runErrand } from './errands.ts'
import type { VaultPlace } from './region-vault.ts'
import { durationMs, newWork, openWorks, type WorkRecord, type Works } from './works.ts'

/* Collecting and verifying: work on the vault itself. Both begin anew after a restart; neither can do harm by being cut off. */

export interface CollectRecord extends WorkRecord {
  readonly checkpointsDeleted: number
  readonly freedBytes: number
  readonly waitingBytes: number
}

export interface VerifyRecord extends WorkRecord {
  readonly request: VaultVerifyRequest
  readonly checkpoints: number
  readonly damages: readonly string[]
  readonly damagedCheckpoints: readonly string[]
  readonly reasons: Readonly<Record<string, string>>
}

interface Parts {
  readonly directory: string
  readonly vault: VaultPlace
  readonly clock: Clock
  readonly log: Log
}

export const newCollect = (id: string, clock: Clock): CollectRecord => ({
  ...newWork(id, clock),
  checkpointsDeleted: 0,
  freedBytes: 0,
  waitingBytes: 0,
})

export function openCollects({ vault, ...parts }: Parts): Promise<Works<CollectRecord>> {
  return openWorks<CollectRecord>({
    ...parts,
    what: 'collection',
    atOnceMax: 1,
    async run({ signal, note }) {
      const done = await runErrand(vault, { kind: 'collect' }, signal)
      if (done.kind !== 'collect') return
      const { held } = done.collected
      if (held.length > 0) {
        const [object] = held
        parts.log.warn({ object, count: held.length }, 'a legal hold keeps what is to be deleted')
      }
      note({
        checkpointsDeleted: done.collected.checkpointsDeleted,
        freedBytes: done.collected.bytesFreed,
        waitingBytes: done.collected.bytesWaiting,
      })
    },
  })
}

export const collectInfo = (record: CollectRecord, clock: Clock): CollectInfo => ({
  collect: record.id,
  state: record.state,
  code: record.code,
  reason: record.reason,
  checkpoints_deleted: record.checkpointsDeleted,
  freed_bytes: record.freedBytes,
  waiting_bytes: record.waitingBytes,
  duration_ms: durationMs(record, clock),
})

export const newVerify = (request: VaultVerifyRequest, clock: Clock): VerifyRecord => ({
  ...newWork(request.verify, clock),
  request,
  checkpoints: 0,
  damages: [],
  damagedCheckpoints: [],
  reasons: {},
})

export function openVerifies({ vault, ...parts }: Parts): Promise<Works<VerifyRecord>> {
  return openWorks<VerifyRecord>({
    ...parts,
    what: 'verification of the vault',
    atOnceMax: 1,
    async run({ record, signal, note }) {
      const { data } = record.request
      const done = await runErrand(vault, { kind: 'verify', data }, signal)
      if (done.kind === 'verify') note(outcomeOf(done.report))
    },
  })
}

function outcomeOf(report: VerifyReport): Partial<VerifyRecord> {
  const reasons = reasonsOf(report)
  const damages = report.damage.map(({ object, what, slot, chunk }) => {
    const record = slot === undefined ? '' : `, record ${slot}`
    return `${object}${record}${chunk === undefined ? '' : ` (chunk ${chunk})`}: ${what}`
  })
  return {
    checkpoints: report.checkpoints,
    damages: damages.slice(0, VAULT_DAMAGES_MAX),
    damagedCheckpoints: Object.keys(reasons),
    reasons,
  }
}

/** Of each checkpoint its first volume that cannot be read whole. Objects of the vault are shared, and their names are nobody's business. */
function reasonsOf({ affected, damage }: VerifyReport): Record<string, string> {
  const reasons: Record<string, string> = {}
  for (const { kind, object } of damage) {
    const id = kind === 'manifest' ? checkpointIdOf(object) : undefined
    if (id !== undefined)
      reasons[id] = 'What it consists of cannot be read: its manifest is damaged.'
  }
  for (const { checkpoint, volume, ranges, rangesMore } of affected) {
    const [first] = ranges
    if (first === undefined || reasons[checkpoint] !== undefined) continue
    reasons[checkpoint] =
      `Of volume ${volume}, ${first.length} bytes from ${first.offset} on cannot be read, and ${ranges.length - 1 + rangesMore} ranges more.`
  }
  return reasons
}

export const verifyInfo = (record: VerifyRecord, clock: Clock): VaultVerifyInfo => ({
  verify: record.id,
  state: record.state,
  code: record.code,
  reason: record.reason,
  checkpoints: record.checkpoints,
  damages: [...record.damages],
  damaged_checkpoints: [...record.damagedCheckpoints],
  reasons: { ...record.reasons },
  duration_ms: durationMs(record, clock),
})
