import { fromJson } from '#control/store/json.ts'
import type { CheckpointItemRow } from '#control/store/tables/checkpoints.ts'

/** Where a backup is offered over NBD. Kept as JSON with the backup. */
export interface CheckpointAttachment {
  /** Its name at the site's agent; left out by an older release. */
  readonly id?: string
  /** The site whose agent offers it. */
  readonly site: string
  /** null: it is being attached. */
  readonly exports:
    | readonly {
        /** Name of the NBD export. */
        readonly name: string
        /** The disk, as the vault names it. */
        readonly volume: string
        readonly size_bytes: number
      }[]
    | null
  /** It is being detached. */
  readonly leaving: boolean
}

export const attachmentOf = (
  row: Pick<CheckpointItemRow, 'attachment'>,
): CheckpointAttachment | null =>
  row.attachment === null ? null : fromJson<CheckpointAttachment>(row.attachment)
