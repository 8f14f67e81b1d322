import { readInstance } from '#control/resources/instances.ts'
import { readServer, serversOfVolume } from '#control/resources/servers.ts'
import { fromJson } from '#control/store/json.ts'
import type { Queries, Transaction } from '#control/store/store.ts'
import { StepWaits } from '../../operation.ts'
import { stepResults } from '../../records.ts'
import { ofOperation } from './backup-work.ts'

/* Disks are not backed up while they are being written back, nor the other way round: what is half restored is nothing to keep.
 *
 * Work on one server takes turns already, by its resource. Here it is about the rest: a group and its servers, volumes and what has them. Each side looks for
 * the other in the transaction in which it begins, and transactions are serialisable: one of the two sees the other. Only what has begun counts, so that
 * nothing waits for what stands behind it in a queue. */

const LOOK_AGAIN_MS = 5_000

/** Of a backup that begins. Throws StepWaits while one of its disks, or who has it, is being restored. */
export async function letRestoresEnd(
  tx: Transaction,
  resource: string,
  volumes: readonly string[],
): Promise<void> {
  const begun = await tx
    .selectFrom('backup_logs')
    .innerJoin('restores', 'restores.id', 'backup_logs.restore')
    .select('restores.resources_status')
    .where('backup_logs.ended_at', 'is', null)
    .where('backup_logs.operation_type', '=', 'restore')
    .execute()
  if (begun.length === 0) return
  const wanted = new Set([resource, ...(await touchedBy(tx, volumes))])
  const busy = begun.some((row) =>
    Object.entries(fromJson<Record<string, string>>(row.resources_status)).some(
      ([key, status]) => status === 'restoring' && wanted.has(key.slice(key.indexOf('#') + 1)),
    ),
  )
  if (busy) throw new StepWaits(LOOK_AGAIN_MS)
}

/** Of a restore that begins. Throws StepWaits while a backup that has begun reads one of its volumes. */
export async function letBackupsEnd(tx: Transaction, volumes: readonly string[]): Promise<void> {
  const begun = await tx
    .selectFrom('backup_logs')
    .innerJoin('checkpoint_items', 'checkpoint_items.checkpoint', 'backup_logs.checkpoint')
    .select(['checkpoint_items.resource', 'checkpoint_items.operation', 'backup_logs.extra_info'])
    .where('backup_logs.ended_at', 'is', null)
    .where('backup_logs.operation_type', '=', 'protect')
    .where('checkpoint_items.status', '=', 'protecting')
    .execute()
  // All backups of a run have one checkpoint: what has begun is the one whose own log is open.
  const own = begun.filter((one) => one.extra_info === ofOperation(one.operation))
  if (own.length === 0) return
  const wanted = new Set(await touchedBy(tx, volumes))
  if (own.some(({ resource }) => wanted.has(resource))) throw new StepWaits(LOOK_AGAIN_MS)
}

/** Whether a backup that has begun reads the volume, or a restore writes it: until that has ended, the site does not delete the volume. */
export async function isReadOrWritten(db: Queries, volume: string): Promise<boolean> {
  const begun = await db
    .selectFrom('operations')
    .select(['id', 'kind', 'input'])
    .where('kind', 'in', [READS, ...WRITE])
    .where('status', 'in', ['pending', 'running'])
    .execute()
  for (const { id, kind, input } of begun) {
    const named = kind === READS ? await chosenBy(db, id) : writtenBy(input)
    if (named.includes(volume)) return true
  }
  return false
}

/** Kinds of operations. */
const READS = 'backup.server'
const WRITE = ['backup.restore', 'backup.restore-volumes'] as const

async function chosenBy(db: Queries, backup: string): Promise<string[]> {
  const { choose } = await stepResults(db, backup)
  const { sources = [] } = (choose ?? {}) as { sources?: readonly { volumes: string[] }[] }
  return sources.flatMap(({ volumes }) => volumes)
}

const writtenBy = (input: string): string[] =>
  fromJson<{ disks: readonly { volume: string }[] }>(input).disks.map(({ volume }) => volume)

/** The volumes, the groups that they are protected in, whether or not a session runs, and the servers that have them. */
async function touchedBy(tx: Transaction, volumes: readonly string[]): Promise<string[]> {
  if (volumes.length === 0) return []
  const groups = await tx
    .selectFrom('volumes')
    .innerJoin('replication_pairs', 'replication_pairs.id', 'volumes.pair')
    .select('replication_pairs.group_id')
    .distinct()
    .where('volumes.id', 'in', [...volumes])
    .execute()
  const found: string[] = groups.map(({ group_id: group }) => group)
  for (const volume of volumes) {
    found.push(volume)
    for (const { server } of await serversOfVolume(tx, volume)) {
      found.push(server)
      const row = await readServer(tx, server)
      // After a switch its backups are those of the server that was protected.
      const instance = await readInstance(tx, row?.instance ?? '')
      if (instance !== undefined) found.push(instance.source_server)
    }
  }
  return found
}
