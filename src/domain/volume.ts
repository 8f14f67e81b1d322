import { unreachable } from '#base/assert.ts'

/** The life of a volume, in the words of the API (`error_extending` with an underscore, unlike groups and pairs). */
export type VolumeStatus =
  | 'creating'
  | 'available'
  | 'in-use'
  | 'attaching'
  | 'detaching'
  | 'extending'
  | 'deleting'
  | 'error'
  | 'error_extending'
  | 'error_deleting'

/** Every legal move. A deleted volume has no state: its row says when it went. */
export const VOLUME_MOVES: Record<VolumeStatus, readonly VolumeStatus[]> = {
  creating: ['available', 'error'],
  available: ['attaching', 'in-use', 'extending', 'deleting'],
  attaching: ['in-use', 'available'],
  'in-use': ['detaching', 'available', 'extending'],
  detaching: ['available', 'in-use'],
  extending: ['available', 'in-use', 'error_extending'],
  error_extending: ['extending', 'deleting'],
  deleting: ['error_deleting'],
  error_deleting: ['deleting'],
  error: ['deleting'],
}

/** States of a volume that has its content, and keeps it. */
export const VOLUME_HAS_DATA: ReadonlySet<string> = new Set<VolumeStatus>([
  'available',
  'in-use',
  'attaching',
  'detaching',
  'extending',
  'error_extending',
])

export const VOLUME_STATUSES = Object.keys(VOLUME_MOVES) as VolumeStatus[]

export const GIB = 1_073_741_824
/** Largest data disk, GB. Also the bound of the site's own command. */
export const VOLUME_GB_MAX = 32_768
/** Largest system disk, GB. */
export const SYSTEM_DISK_GB_MAX = 1_024

export interface VolumeFacts {
  readonly status: VolumeStatus
  readonly sizeGb: number
  readonly bootable: boolean
  readonly multiattach: boolean
  readonly attached: boolean
  /** The volume is one side of a replication pair. */
  readonly paired: boolean
}

export type VolumeCommand =
  | { readonly kind: 'extend'; readonly newSizeGb: number }
  | { readonly kind: 'delete' }
  | { readonly kind: 'reserve' }
  | { readonly kind: 'unreserve' }
  | { readonly kind: 'attach' }
  | { readonly kind: 'detach' }
  | { readonly kind: 'rename' }
  | { readonly kind: 'retype' }

export type VolumeRefusal =
  | 'VOLUME_EXTEND_STATE'
  | 'VOLUME_SHARED_EXTEND_STATE'
  | 'VOLUME_DELETE_STATE'
  | 'VOLUME_ATTACH_STATE'
  | 'VOLUME_NOT_ATTACHED'
  | 'VOLUME_NOT_LARGER'
  | 'VOLUME_TOO_LARGE'
  | 'VOLUME_PAIRED'
  | 'VOLUME_RETYPE_STATE'

export type VolumeDecision =
  | { readonly ok: true; readonly via: VolumeStatus | null }
  | { readonly ok: false; readonly refusal: VolumeRefusal }

/** Decides; does nothing. */
export function decideVolume(facts: VolumeFacts, command: VolumeCommand): VolumeDecision {
  switch (command.kind) {
    case 'rename':
      return { ok: true, via: null }
    case 'delete':
      if (facts.paired) return refuse('VOLUME_PAIRED')
      if (facts.attached || !VOLUME_MOVES[facts.status].includes('deleting')) {
        return refuse('VOLUME_DELETE_STATE')
      }
      return { ok: true, via: 'deleting' }
    case 'extend': {
      if (facts.paired) return refuse('VOLUME_PAIRED')
      const hindrance = hindersGrowth(facts, command.newSizeGb)
      if (hindrance !== null) return refuse(hindrance)
      if (command.newSizeGb <= facts.sizeGb) return refuse('VOLUME_NOT_LARGER')
      return { ok: true, via: 'extending' }
    }
    case 'retype':
      if (facts.paired) return refuse('VOLUME_PAIRED')
      return facts.status === 'available' || facts.status === 'in-use'
        ? { ok: true, via: null }
        : refuse('VOLUME_RETYPE_STATE')
    case 'reserve':
      return facts.status === 'available'
        ? { ok: true, via: 'attaching' }
        : refuse('VOLUME_ATTACH_STATE')
    case 'unreserve':
      return facts.status === 'attaching'
        ? { ok: true, via: 'available' }
        : refuse('VOLUME_ATTACH_STATE')
    case 'attach':
      if (
        facts.status === 'available' ||
        facts.status === 'attaching' ||
        (facts.status === 'in-use' && facts.multiattach)
      ) {
        return { ok: true, via: 'in-use' }
      }
      return refuse('VOLUME_ATTACH_STATE')
    case 'detach':
      if (!facts.attached) return refuse('VOLUME_NOT_ATTACHED')
      return facts.status === 'in-use'
        ? { ok: true, via: 'available' }
        : refuse('VOLUME_ATTACH_STATE')
    default:
      return unreachable(command)
  }
}

/** Why a disk may not have this size, alone or with the other one of its pair. Null: it may, or has it already. */
export function hindersGrowth(
  { status, bootable, multiattach }: VolumeFacts,
  newSizeGb: number,
): 'VOLUME_EXTEND_STATE' | 'VOLUME_SHARED_EXTEND_STATE' | 'VOLUME_TOO_LARGE' | null {
  if (!VOLUME_MOVES[status].includes('extending')) return 'VOLUME_EXTEND_STATE'
  if (multiattach && status === 'in-use') return 'VOLUME_SHARED_EXTEND_STATE'
  return newSizeGb > (bootable ? SYSTEM_DISK_GB_MAX : VOLUME_GB_MAX) ? 'VOLUME_TOO_LARGE' : null
}

const refuse = (refusal: VolumeRefusal): VolumeDecision => ({ ok: false, refusal })
