/* What becomes of a checkpoint in the vault that no backup refers to. Deleted is only what this control plane has a row for that says so: a database that was
 * restored, or another one, knows nothing of newer checkpoints, and what nobody knows anything of may be somebody's last copy. */

/** How long a copy of another region may take from its admission until it is a backup. */
export const ADMISSION_DAYS = 7
const ADMISSION_MS = ADMISSION_DAYS * 86_400_000

export interface VaultFacts {
  readonly nowMs: number
  /** Of the backup that its label `item` names; null: there is none (any more). */
  readonly item: { readonly status: string; readonly vaultCheckpoint: string | null } | null
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
export function judgeUnused({ nowMs, item, admission }: VaultFacts): VaultVerdict {
  if (admission !== undefined) {
    if (admission === null) return 'unknown'
    if (admission.state !== 'open') return 'orphan'
    return nowMs - admission.admittedMs > ADMISSION_MS ? 'late' : 'waiting'
  }
  if (item === null) return 'unknown'
  // The backup has another checkpoint, or has come to nothing.
  return item.vaultCheckpoint !== null || item.status === 'error' ? 'orphan' : 'waiting'
}
