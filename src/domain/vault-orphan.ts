/* What becomes of a checkpoint in the vault that no backup refers to. Deleted is only what this control plane has a row for that says so: a database that was
 * restored, or another one, knows nothing of newer checkpoints, and what nobody knows anything of may be somebody's last copy. */

/** How long a copy of another region may take from its admission until it is a backup. */
export const ADMISSION_DAYS = 7
const ADMISSION_MS = ADMISSION_DAYS * 86_400_000
/** How long the checkpoint of a backup that failed is kept: with a database that was restored, or a copy of one, it may be somebody's last good one. */
export const FAILED_DAYS = 7
const FAILED_MS = FAILED_DAYS * 86_400_000
/** After so long a silence a site is given up. Longer than the restart of a host. */
export const SILENCE_MAX_MS = 900_000

export interface VaultFacts {
  readonly nowMs: number
  /** When the checkpoint shows its volumes. */
  readonly createdMs: number
  /** Of the backup that its label `item` names; null: there is none (any more). */
  readonly item: {
    readonly status: string
    readonly vaultCheckpoint: string | null
    readonly finishedMs: number | null
  } | null
  /** Its label `replica`: what is known of the copy; null: nothing. Left out: it has none, it was made here. */
  readonly admission?: { readonly state: string; readonly admittedMs: number } | null
}

/**
 * waiting   it may still become a backup
 * orphan    it never will
 * late      a copy that has had its time: an orphan as soon as that is noted
 * unknown   nothing is known of it; a person has to look
 */
export type VaultVerdict = 'waiting' | 'orphan' | 'late' | 'unknown'

/** For a checkpoint that no backup refers to. */
export function judgeUnused({ nowMs, createdMs, item, admission }: VaultFacts): VaultVerdict {
  if (admission !== undefined) {
    if (admission === null) return 'unknown'
    if (admission.state !== 'open') return 'orphan'
    return nowMs - admission.admittedMs > ADMISSION_MS ? 'late' : 'waiting'
  }
  if (item === null) return 'unknown'
  // The backup has another checkpoint.
  if (item.vaultCheckpoint !== null) return 'orphan'
  if (item.status !== 'error') return 'waiting'
  const { finishedMs } = item
  // It was whole long before the backup was said to have failed: whoever said so had not looked at this work, but at rows of an older day.
  if (finishedMs === null || createdMs < finishedMs - SILENCE_MAX_MS) return 'unknown'
  return nowMs - finishedMs > FAILED_MS ? 'orphan' : 'waiting'
}
