import { fault, Fault } from '#base/fault.ts'
import { isDrillVolume } from '#control/resources/drills.ts'
import { isReadOnly, orderLimit } from '#control/resources/volume-limits.ts'
import { attachmentsOf, metadataOf, updateVolume, volumeFacts } from '#control/resources/volumes.ts'
import { readServer, serversOfVolume } from '#control/resources/servers.ts'
import type { AgentRegistry } from '#control/sites/agents.ts'
import { refusalCode } from '#control/sites/client.ts'
import { toJson } from '#control/store/json.ts'
import type { Queries, Transaction } from '#control/store/store.ts'
import type { VolumeRow } from '#control/store/tables/resources.ts'
import { GIB, hindersGrowth } from '#domain/volume.ts'
import type { StepContext } from '../../operation.ts'
import { isOff, powerBook } from '../instances/instance-facts.ts'
import { serversAreSettled } from '../volumes/volume-requests.ts'

/* Whether two disks that exist already can become a pair: what their rows say, and what their sites say. */

type Db = Queries | Transaction

export type DiskRefusal =
  | 'PRODUCTION_DISK_PAIRED'
  | 'DISK_OF_DRILL'
  | 'DR_DISK_PAIRED'
  | 'PRODUCTION_DISK_STATE'
  | 'DR_DISK_STATE'
  | 'DR_DISK_READ_ONLY'
  | 'DR_DISK_RUNS'
  | 'DISKS_OF_ONE_SITE'
  | 'DISK_TYPES_DIFFER'
  | 'DISK_SIZES_DIFFER'

/** Settled states: everything else is being made, moved or grown, or is broken. */
const USABLE: ReadonlySet<string> = new Set(['available', 'in-use'])

/** By the rows. Null: they can. */
export async function judgeDisks(
  db: Db,
  sources: { readonly agents: AgentRegistry },
  production: VolumeRow,
  dr: VolumeRow,
): Promise<DiskRefusal | null> {
  if (production.az === dr.az) return 'DISKS_OF_ONE_SITE'
  for (const { id } of [production, dr]) if (await isDrillVolume(db, id)) return 'DISK_OF_DRILL'
  if (production.pair !== null) return 'PRODUCTION_DISK_PAIRED'
  if (dr.pair !== null) return 'DR_DISK_PAIRED'
  if (!USABLE.has(production.status)) return 'PRODUCTION_DISK_STATE'
  if (!USABLE.has(dr.status)) return 'DR_DISK_STATE'
  if (production.volume_type !== dr.volume_type) return 'DISK_TYPES_DIFFER'
  if (production.multiattach !== dr.multiattach) return 'DISK_TYPES_DIFFER'
  if (production.size_gb !== dr.size_gb) return 'DISK_SIZES_DIFFER'
  // Replication would write what somebody has said must not change.
  if (await isReadOnly(db, dr.id)) return 'DR_DISK_READ_ONLY'
  return (await isUsed(db, sources, dr)) ? 'DR_DISK_RUNS' : null
}

/**
 * What is read-only at one site is so at the other, because after a switch that is where clients are. It binds the exports, so replication goes on
 * writing the DR disk. While they are a pair the flag stays as it is; it is each disk's own again afterwards.
 */
export async function shareReadOnly(
  tx: Transaction,
  production: VolumeRow,
  dr: VolumeRow,
  nowMs: number,
): Promise<void> {
  if (!(await isReadOnly(tx, production.id))) return
  await orderLimit(tx, dr, nowMs, true)
  const metadata = toJson({ ...metadataOf(dr), readonly: 'True' })
  await updateVolume(tx, dr.id, { metadata }, nowMs)
}

/** Why one of the disks of a pair may not grow: the rules of a disk that is extended by itself. Null: they may. */
export async function hindersPairGrowth(
  tx: Transaction,
  disks: readonly VolumeRow[],
  newSizeGb: number,
): Promise<ReturnType<typeof hindersGrowth> | 'SERVER_STATE'> {
  for (const disk of disks) {
    const hindrance = hindersGrowth(volumeFacts(disk), newSizeGb)
    if (hindrance !== null) return hindrance
    if (!(await serversAreSettled(tx, disk.id))) return 'SERVER_STATE'
  }
  return null
}

/** A server that runs, or may, has the disk. Of a server elsewhere nothing is known. */
export async function isUsed(
  db: Db,
  sources: { readonly agents: AgentRegistry },
  volume: VolumeRow,
): Promise<boolean> {
  const power = powerBook(sources)
  const holders = new Set([
    ...(await serversOfVolume(db, volume.id)).map(({ server }) => server),
    ...attachmentsOf(volume).map(({ server }) => server),
  ])
  for (const id of holders) {
    const server = await readServer(db, id)
    if (server === undefined || !isOff(server, power(server))) return true
  }
  return false
}

export const PRODUCTION_DISK_UNKNOWN = fault({
  code: 'PRODUCTION_DISK_UNKNOWN',
  retry: 'never',
  text: 'The production disk is not at its site.',
  hint: 'Delete the pair, and create it again with another disk.',
})
export const DR_DISK_UNKNOWN = fault({
  code: 'DR_DISK_UNKNOWN',
  retry: 'never',
  text: 'The DR disk is not at its site.',
  hint: 'Delete the pair, and create it again with another disk.',
})
export const PRODUCTION_DISK_TAKEN = fault({
  code: 'PRODUCTION_DISK_TAKEN',
  retry: 'never',
  text: 'The production disk replicates already.',
  hint: 'Wait until its old pair is gone at its site; then delete this pair and create it again.',
})
export const DR_DISK_TAKEN = fault({
  code: 'DR_DISK_TAKEN',
  retry: 'never',
  text: 'The DR disk replicates already.',
  hint: 'Wait until its old pair is gone at its site; then delete this pair and create it again.',
})
export const PRODUCTION_DISK_FAILED = fault({
  code: 'PRODUCTION_DISK_FAILED',
  retry: 'never',
  text: 'The production disk has failed at its site.',
  hint: 'Look at the log of its site; the disk has to be replaced.',
})
export const DR_DISK_FAILED = fault({
  code: 'DR_DISK_FAILED',
  retry: 'never',
  text: 'The DR disk has failed at its site.',
  hint: 'Delete the pair, replace the DR disk, and create the pair again.',
})
export const DR_DISK_IN_USE = fault({
  code: 'DR_DISK_IN_USE',
  retry: 'never',
  text: 'A server that may run has the DR disk.',
  hint: 'Stop the server or detach the disk; then delete the pair and create it again.',
})
export const PAIR_SIZES_DIFFER = fault({
  code: 'PAIR_SIZES_DIFFER',
  retry: 'never',
  text: 'The two disks of the pair are of different sizes.',
  hint: 'Extend the smaller disk; then delete the pair and create it again.',
})

const FAULTS = {
  production: {
    unknown: PRODUCTION_DISK_UNKNOWN,
    taken: PRODUCTION_DISK_TAKEN,
    failed: PRODUCTION_DISK_FAILED,
  },
  dr: { unknown: DR_DISK_UNKNOWN, taken: DR_DISK_TAKEN, failed: DR_DISK_FAILED },
} as const

/** By their sites. Throws the fault that says what is wrong; what a site holds may differ from its row after a restore. */
export async function demandDisk(
  ctx: StepContext<unknown>,
  role: keyof typeof FAULTS,
  volume: VolumeRow,
): Promise<void> {
  const faults = FAULTS[role]
  const doing = `pairing disk ${volume.id}`
  try {
    const { sites } = ctx.services
    const info = await sites.command(
      volume.az,
      'volume.show',
      { volume: volume.id },
      { signal: ctx.signal },
    )
    if (info.failed !== null) throw new Fault(faults.failed, doing)
    if (info.serving === 'session') throw new Fault(faults.taken, doing)
    if (info.size_bytes !== volume.size_gb * GIB) throw new Fault(PAIR_SIZES_DIFFER, doing)
  } catch (error) {
    if (refusalCode(error) === 'VOLUME_UNKNOWN') throw new Fault(faults.unknown, doing, {}, error)
    throw error
  }
}
