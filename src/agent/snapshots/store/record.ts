import { decodeChecked, encodeChecked } from '#base/checked-json.ts'
import type { SnapshotKind, SnapshotPurpose } from '../snapshots.ts'

/* snapshot.json; docs/formats/snapshot-store.md describes it for readers. */

export const SNAPSHOT_FORMAT = 2
/** Without a checksum. */
const UNCHECKED_FORMAT = 1

export interface StoredSnapshot {
  readonly id: string
  readonly purpose: SnapshotPurpose
  /** sealing: sealed, but what is not kept has not been given back yet */
  readonly state: 'ready' | 'rolling_back' | 'sealing' | 'sealed' | 'failed'
  readonly reason: string | null
  readonly takenMs: number
  readonly stallMs: number
  readonly volumes: readonly StoredVolume[]
}

export interface StoredVolume {
  readonly volume: string
  readonly kind: SnapshotKind
  readonly sizeBytes: number
}

const PURPOSES: readonly unknown[] = ['user', 'kept', 'drill', 'backup'] satisfies SnapshotPurpose[]
const STATES: readonly unknown[] = [
  'ready',
  'rolling_back',
  'sealing',
  'sealed',
  'failed',
] satisfies StoredSnapshot['state'][]
const KINDS: readonly unknown[] = ['reflink', 'before_image'] satisfies SnapshotKind[]

export function encodeSnapshot(snapshot: StoredSnapshot): string {
  const { id, purpose, state, reason, takenMs, stallMs, volumes } = snapshot
  const text = {
    format: SNAPSHOT_FORMAT,
    id,
    purpose,
    state,
    reason,
    taken: new Date(takenMs).toISOString(),
    stall_ms: stallMs,
    volumes: volumes.map(({ volume, kind, sizeBytes }) => ({
      volume,
      kind,
      size_bytes: sizeBytes,
    })),
  }
  return encodeChecked(text, 2)
}

/** The record, or what is wrong with the text. */
export function decodeSnapshot(text: string): StoredSnapshot | { readonly problem: string } {
  const decoded = decodeChecked(text)
  if (decoded === null) return { problem: 'not JSON, or changed since it was written' }
  const found = decoded.value
  if (!isObject(found)) return { problem: 'not an object' }
  if (found['format'] !== (decoded.checked ? SNAPSHOT_FORMAT : UNCHECKED_FORMAT)) {
    const which = `format ${String(found['format'])} ${decoded.checked ? 'with' : 'without'} checksum`
    return { problem: `${which}, this version reads ${SNAPSHOT_FORMAT}` }
  }
  const { id, purpose, state, reason, taken, stall_ms: stallMs, volumes } = found
  const takenMs = typeof taken === 'string' ? Date.parse(taken) : Number.NaN
  if (typeof id !== 'string') return { problem: 'id is no text' }
  if (!PURPOSES.includes(purpose)) return { problem: 'purpose is unknown' }
  if (!STATES.includes(state)) return { problem: 'state is unknown' }
  if (reason !== null && typeof reason !== 'string') return { problem: 'reason is no text' }
  if (Number.isNaN(takenMs)) return { problem: 'taken is no time' }
  if (typeof stallMs !== 'number') return { problem: 'stall_ms is no number' }
  if (!Array.isArray(volumes)) return { problem: 'volumes is no list' }
  const stored = volumes.map(decodeVolume)
  if (stored.includes(undefined)) return { problem: 'a volume is unreadable' }
  return {
    id,
    purpose: purpose as SnapshotPurpose,
    state: state as StoredSnapshot['state'],
    reason,
    takenMs,
    stallMs,
    volumes: stored as StoredVolume[],
  }
}

function decodeVolume(value: unknown): StoredVolume | undefined {
  if (!isObject(value)) return undefined
  const { volume, kind, size_bytes: sizeBytes } = value
  if (typeof volume !== 'string' || !KINDS.includes(kind)) return undefined
  if (typeof sizeBytes !== 'number' || !Number.isSafeInteger(sizeBytes) || sizeBytes <= 0) {
    return undefined
  }
  return { volume, kind: kind as SnapshotKind, sizeBytes }
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)
