import { readAdmission, setAdmission } from '#control/resources/backup-works.ts'
import { readItem } from '#control/resources/checkpoints.ts'
import { refusalCode } from '#control/sites/client.ts'
import { judgeUnused, type VaultVerdict } from '#domain/vault-orphan.ts'
import type { VaultCheckpoint } from '#wire/site/backups.ts'
import type { StepContext } from '../../operation.ts'
import { replicaItemId } from './replica-arrivals.ts'

/* Checkpoints in the vault that no backup refers to: of a backup that was given up while its site finished it, of one that was made at both sides, of a copy that
 * arrived and never became a backup. They are looked for by their ids; only those that no row has are read.
 *
 * Beside running backups: the vault is listed first and the rows are read afterwards, and a backup has its row before its site hears of it. */

const PAGE = 1000
/** Deleted in one run; the rest goes with the next. */
const FORGOTTEN_MAX = 1000
const LOCKED = 'CHECKPOINT_LOCKED'

export interface Orphans {
  readonly forgotten: number
  /** Nothing is known of them. They stay. */
  readonly unknown: number
}

export async function forgetOrphans(ctx: StepContext<unknown>, site: string): Promise<Orphans> {
  const { sites, log } = ctx.services
  const list = (request: { after?: string; checkpoint?: string; ids?: boolean }) =>
    sites.command(site, 'vault.list', { limit: PAGE, ...request }, { signal: ctx.signal })
  let forgotten = 0
  let unknown = 0
  for (let after: string | undefined; ; ) {
    const page = await list({ ids: true, ...(after === undefined ? {} : { after }) })
    const ids = page.ids ?? []
    for (const id of await unused(ctx, ids)) {
      const [found] = (await list({ checkpoint: id })).checkpoints
      if (found === undefined) continue
      const verdict = await judge(ctx, found)
      if (verdict === 'unknown') unknown++
      if (verdict !== 'orphan' || forgotten === FORGOTTEN_MAX) continue
      log.warn({ checkpoint: id, labels: found.labels }, 'a checkpoint of no backup is deleted')
      if (await forget(ctx, site, id)) forgotten++
    }
    after = ids.at(-1)
    if (!page.more || after === undefined) break
  }
  if (unknown > 0) {
    log.warn({ site, unknown }, 'the vault has checkpoints of which nothing is known here')
  }
  return { forgotten, unknown }
}

/** A database takes so many values in one question. */
const ASKED_AT_A_TIME = 500

async function unused(
  { services }: StepContext<unknown>,
  ids: readonly string[],
): Promise<string[]> {
  const used = new Set<string | null>()
  for (let at = 0; at < ids.length; at += ASKED_AT_A_TIME) {
    const rows = await services.store.db
      .selectFrom('checkpoint_items')
      .select('vault_checkpoint')
      .where('vault_checkpoint', 'in', ids.slice(at, at + ASKED_AT_A_TIME))
      .execute()
    for (const { vault_checkpoint: id } of rows) used.add(id)
  }
  return ids.filter((id) => !used.has(id))
}

/** What is late is noted as such in the transaction in which it is seen to be no backup: after that it becomes none. */
async function judge(
  { services }: StepContext<unknown>,
  { checkpoint, labels, created_at: createdMs }: VaultCheckpoint,
): Promise<VaultVerdict> {
  const { store, clock } = services
  return await store.write(async (tx) => {
    const record = labels['replica']
    const own = labels['item'] === undefined ? undefined : await readItem(tx, labels['item'])
    const item = record === undefined ? own : await readItem(tx, replicaItemId(record))
    // It has become one since the rows were read.
    if (item?.vault_checkpoint === checkpoint) return 'waiting'
    const row = record === undefined ? undefined : await readAdmission(tx, record)
    const verdict = judgeUnused({
      nowMs: clock.wallMs(),
      createdMs,
      item:
        item === undefined
          ? null
          : {
              status: item.status,
              vaultCheckpoint: item.vault_checkpoint,
              finishedMs: item.finished_at,
            },
      ...(record === undefined
        ? {}
        : {
            admission: row === undefined ? null : { state: row.state, admittedMs: row.admitted_at },
          }),
    })
    if (verdict !== 'late' || record === undefined) return verdict
    await setAdmission(tx, record, 'ended')
    return 'orphan'
  })
}

/** False: it is locked, and stays until its time. */
async function forget(
  { services, signal }: StepContext<unknown>,
  site: string,
  checkpoint: string,
): Promise<boolean> {
  try {
    await services.sites.command(site, 'vault.forget', { checkpoint }, { signal })
    return true
  } catch (error) {
    if (refusalCode(error) === LOCKED) return false
    throw error
  }
}
