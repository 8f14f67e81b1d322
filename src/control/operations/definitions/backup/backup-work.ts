import { sleep } from '#base/clock.ts'
import { Fault, fault, isFault } from '#base/fault.ts'
import { readCheckpoint } from '#control/resources/checkpoints.ts'
import { SITE_BUSY, SITE_NEVER_SEEN, SITE_UNREACHABLE } from '#control/sites/client.ts'
import { REGION_CREDENTIALS, REGION_UNREACHABLE } from '#control/sites/regions.ts'
import type { Transaction } from '#control/store/store.ts'
import { newId } from '#base/ids.ts'
import { toJson } from '#control/store/json.ts'
import type { BackupLogRow } from '#control/store/tables/checkpoints.ts'
import { SILENCE_MAX_MS } from '#domain/vault-orphan.ts'
import type { StepContext } from '../../operation.ts'

/* What backups, restores and copies have in common: each is named work at an agent, which goes on by itself, and is asked for again and
 * again until it has ended. So nothing is lost when any process dies. */

export const BACKUP_WORK_FAILED = fault({
  code: 'BACKUP_WORK_FAILED',
  retry: 'never',
  text: 'The site could not do it.',
  hint: 'The reason is in the message. Repeat it when that is mended.',
})
export const BACKUP_WORK_SILENT = fault({
  code: 'BACKUP_WORK_SILENT',
  retry: 'never',
  text: 'The site has not answered for a quarter of an hour.',
  hint: 'Start its agent. What it had under way goes on by itself, but nobody waits for it any more.',
})

const POLL_MS = 500
/** How often progress is put into a row that lists show. */
const SHOWN_EVERY_MS = 2_000

interface WorkInfo {
  readonly state: 'running' | 'done' | 'failed' | 'cancelled'
  readonly code: string | null
  readonly reason: string | null
  readonly total_bytes: number
  readonly done_bytes: number
}

const AWAY = [SITE_UNREACHABLE, SITE_NEVER_SEEN, SITE_BUSY, REGION_UNREACHABLE, REGION_CREDENTIALS]

/** The agent, or the other region, may come back and go on; whoever asks waits for it. */
export const isAway = (error: unknown): boolean => AWAY.some((kind) => isFault(error, kind))

/**
 * Asks until the work is done. `show`: puts whole percents where lists read them. `gone`: asked when there is no answer, true ends the wait
 * for one at once. Faults: BACKUP_WORK_FAILED with the agent's code as `work`,
 * BACKUP_WORK_SILENT, and refusals of the agent.
 */
export async function followWork<Info extends WorkInfo>(
  ctx: StepContext<unknown>,
  doing: string,
  ask: () => Promise<Info>,
  show: (percent: number) => Promise<void>,
  gone: () => boolean = () => false,
): Promise<Info> {
  const { clock } = ctx.services
  let heardMs = clock.bootMs()
  let shownMs = 0
  let shown = 0
  for (;;) {
    let info: Info | null = null
    try {
      info = await ask()
      heardMs = clock.bootMs()
    } catch (error) {
      if (!isAway(error)) throw error
      if (gone() || clock.bootMs() - heardMs > SILENCE_MAX_MS) {
        throw new Fault(BACKUP_WORK_SILENT, doing, {}, error)
      }
    }
    if (info?.state === 'done') return info
    if (info !== null && info.state !== 'running') {
      const why = `${info.code ?? info.state}: ${info.reason ?? 'no reason was given'}`
      throw new Fault(BACKUP_WORK_FAILED, `${doing}: ${why}`, { work: info.code })
    }
    if (info !== null && info.total_bytes > 0) {
      const percent = Math.min(99, Math.floor((100 * info.done_bytes) / info.total_bytes))
      await ctx.progress(percent)
      if (percent > shown && clock.bootMs() - shownMs >= SHOWN_EVERY_MS) {
        await show(percent)
        shown = percent
        shownMs = clock.bootMs()
      }
    }
    await sleep(clock, POLL_MS, ctx.signal)
  }
}

/** What the agent said went wrong with work that failed; null for any other error. */
export const workCode = (error: unknown): string | null =>
  isFault(error, BACKUP_WORK_FAILED) && typeof error.detail['work'] === 'string'
    ? error.detail['work']
    : null

// ---------------------------------------------------------------- the log of what was done

export type LogEntry = Pick<BackupLogRow, 'project' | 'operation_type' | 'checkpoint'> &
  Partial<Pick<BackupLogRow, 'plan' | 'restore' | 'schedule'>>

/** What the log of an operation is found by. */
export const ofOperation = (operation: string): string => toJson({ operation })

/** At the beginning of what is logged; `endLog` with the same operation ends it. The provider is that of the checkpoint. */
export async function beginLog(
  tx: Transaction,
  operation: string,
  entry: LogEntry,
  nowMs: number,
): Promise<void> {
  const checkpoint =
    entry.checkpoint === null ? undefined : await readCheckpoint(tx, entry.checkpoint)
  await tx
    .insertInto('backup_logs')
    .values({
      id: newId(),
      provider: checkpoint?.provider ?? null,
      plan: null,
      restore: null,
      schedule: null,
      ...entry,
      extra_info: ofOperation(operation),
      status: 'in_progress',
      started_at: nowMs,
      ended_at: null,
      error_info: null,
    })
    .execute()
}

export async function endLog(
  tx: Transaction,
  operation: string,
  status: string,
  error: string | null,
  nowMs: number,
): Promise<void> {
  await tx
    .updateTable('backup_logs')
    .set({ status, ended_at: nowMs, error_info: error?.slice(0, 1_000) ?? null })
    .where('extra_info', '=', ofOperation(operation))
    .where('ended_at', 'is', null)
    .execute()
}
