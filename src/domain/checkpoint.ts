import { unreachable } from '#base/assert.ts'

/* The life of backups. A checkpoint is what one run made: an item for each server, and in it a disk backup for each of its disks.
 *
 *     item    protecting ─► available ⇄ waiting_restore ─► restoring ─► available
 *                 │             └──► waiting_delete ─► deleting ─► (gone)
 *                 └─► error ─────────────┘    └──────────┴─► error
 *
 * A copy to another region runs beside that: the item stays available, and its `copy` says how the latest one stands.
 */

export type ItemStatus =
  | 'waiting_protect'
  | 'protecting'
  | 'available'
  | 'waiting_restore'
  | 'restoring'
  | 'waiting_delete'
  | 'deleting'
  | 'error'

/** Every legal move. A deleted item has no state: its row is gone. */
export const ITEM_MOVES: Record<ItemStatus, readonly ItemStatus[]> = {
  waiting_protect: ['protecting', 'error'],
  protecting: ['available', 'error'],
  available: ['waiting_restore', 'waiting_delete'],
  // A restore that failed leaves the backup as good as it was.
  waiting_restore: ['restoring', 'available'],
  restoring: ['available'],
  waiting_delete: ['deleting', 'error'],
  deleting: ['error'],
  error: ['waiting_delete'],
}

export type CopyStatus = 'na' | 'waiting_copy' | 'copying' | 'success' | 'fail'

/** How one copy of one item to one region stands. */
export type RecordStatus = 'waiting_replicate' | 'replicating' | 'success' | 'fail' | 'skip'

export const RECORD_MOVES: Record<RecordStatus, readonly RecordStatus[]> = {
  waiting_replicate: ['replicating', 'fail', 'skip'],
  replicating: ['success', 'fail', 'skip'],
  success: [],
  fail: [],
  // There was nothing to copy any more when its turn came.
  skip: [],
}

/** What an item shows while its latest record stands so. */
export const COPY_OF: Record<RecordStatus, CopyStatus> = {
  waiting_replicate: 'waiting_copy',
  replicating: 'copying',
  success: 'success',
  fail: 'fail',
  skip: 'fail',
}

export interface ItemFacts {
  readonly status: ItemStatus
  readonly copy: CopyStatus
  /** It came from another region. */
  readonly replica: boolean
  /** Images that were made of it. */
  readonly images: number
  /** It has bytes in the vault. */
  readonly stored: boolean
  /** Somebody may be reading it over NBD. */
  readonly attached: boolean
}

export type ItemCommand = 'restore' | 'delete' | 'replicate'

export type ItemRefusal =
  /** Something is being done to it, or it is being copied. */
  | 'ITEM_BUSY'
  /** It is not available. */
  | 'ITEM_STATE'
  | 'ITEM_IN_IMAGE'
  /** It is attached: whoever reads it would lose it. */
  | 'ITEM_ATTACHED'
  /** A replica is restored and copied in its own region only, and never copied on. */
  | 'ITEM_REPLICA'

export type ItemDecision =
  | { readonly ok: true; readonly via: ItemStatus }
  | { readonly ok: false; readonly refusal: ItemRefusal }

const refuse = (refusal: ItemRefusal): ItemDecision => ({ ok: false, refusal })

/** The state from now on, until the operation moves it on, or why it is refused. Decides; does nothing. */
export function decideItem(facts: ItemFacts, command: ItemCommand): ItemDecision {
  const { status, copy } = facts
  const settled = status === 'available' || status === 'error'
  if (!settled || copy === 'waiting_copy' || copy === 'copying') return refuse('ITEM_BUSY')
  switch (command) {
    case 'delete':
      if (facts.attached) return refuse('ITEM_ATTACHED')
      return facts.images > 0 ? refuse('ITEM_IN_IMAGE') : { ok: true, via: 'waiting_delete' }
    case 'restore':
      return status === 'available' && facts.stored
        ? { ok: true, via: 'waiting_restore' }
        : refuse('ITEM_STATE')
    case 'replicate':
      if (facts.replica) return refuse('ITEM_REPLICA')
      return status === 'available' && facts.stored
        ? { ok: true, via: 'available' }
        : refuse('ITEM_STATE')
    default:
      return unreachable(command)
  }
}

export type CheckpointStatus = 'protecting' | 'available' | 'error' | 'deleting' | 'error-deleting'

/** Of a checkpoint as a whole. `deletionFailed`: an item is left behind by a deletion that did not work. */
export function checkpointStatus(
  items: readonly ItemStatus[],
  deletionFailed = false,
): CheckpointStatus {
  const has = (...some: ItemStatus[]) => items.some((status) => some.includes(status))
  if (has('waiting_protect', 'protecting')) return 'protecting'
  if (has('available', 'waiting_restore', 'restoring')) return 'available'
  if (has('waiting_delete', 'deleting')) return 'deleting'
  return deletionFailed ? 'error-deleting' : 'error'
}

/** While a checkpoint as a whole is copied, and after it: only where the older API asked for it, so that others see `available`. */
export const COPYING_STATUSES: ReadonlySet<string> = new Set([
  'wait_copying',
  'copying',
  'finished',
])

/** Of a checkpoint that is copied as a whole. Items that have nothing to copy do not count. */
export function copyingStatus(
  items: readonly { readonly status: ItemStatus; readonly copy: CopyStatus }[],
): 'wait_copying' | 'copying' | 'finished' | 'available' {
  const copies = items.filter(({ status }) => status === 'available').map(({ copy }) => copy)
  if (copies.includes('copying')) return 'copying'
  if (copies.includes('waiting_copy')) return 'wait_copying'
  const whole = copies.length > 0 && copies.every((copy) => copy === 'success')
  return whole ? 'finished' : 'available'
}

/** Which mapping of disk backups to disks is refused, and why. */
export type MappingRefusal =
  | 'BACKUP_NOT_OF_ITEM'
  | 'BACKUPS_UNMAPPED'
  | 'SERVER_WITHOUT_DISKS'
  | 'DISK_NOT_ATTACHED'
  | 'DISK_SHARED'
  | 'DISK_IS_SYSTEM'
  | 'DISK_TOO_SMALL'

export interface DiskToRestore {
  readonly backup: string
  readonly system: boolean
  readonly sizeGb: number
}

export interface TargetDisk {
  readonly volume: string
  readonly system: boolean
  readonly shared: boolean
  readonly sizeGb: number
}

/**
 * Every disk backup of an item (some of them, where a `part` is enough) goes to a disk of the target server, each to another one, and none to
 * a smaller one. `null`: nothing is wrong with the mapping.
 */
export function mappingRefusal(
  backups: readonly DiskToRestore[],
  disks: readonly TargetDisk[],
  mapping: readonly { readonly backup: string; readonly volume: string }[],
  part = false,
): MappingRefusal | null {
  if (disks.length === 0) return 'SERVER_WITHOUT_DISKS'
  const byBackup = new Map(backups.map((one) => [one.backup, one]))
  const byVolume = new Map(disks.map((one) => [one.volume, one]))
  if (mapping.some(({ backup }) => !byBackup.has(backup))) return 'BACKUP_NOT_OF_ITEM'
  const mapped = new Set(mapping.map(({ backup }) => backup))
  const targets = new Set(mapping.map(({ volume }) => volume))
  const wanted = part ? Math.max(mapping.length, 1) : backups.length
  if (mapped.size !== wanted || mapping.length !== wanted) return 'BACKUPS_UNMAPPED'
  if (targets.size !== mapping.length) return 'BACKUPS_UNMAPPED'
  for (const { backup, volume } of mapping) {
    const [from, to] = [byBackup.get(backup), byVolume.get(volume)]
    if (to === undefined || from === undefined) return 'DISK_NOT_ATTACHED'
    if (to.shared) return 'DISK_SHARED'
    if (to.system && !from.system) return 'DISK_IS_SYSTEM'
    if (to.sizeGb < from.sizeGb) return 'DISK_TOO_SMALL'
  }
  return null
}
