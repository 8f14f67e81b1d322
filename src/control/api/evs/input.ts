import { isVolumeText } from '#domain/text.ts'
import { VOLUME_GB_MAX } from '#domain/volume.ts'
import { type EvsCode, refuse } from './errors.ts'

/* Request members, one by one, because nearly each has a code of its own. Null counts as absent everywhere: clients send
 * every member they know. */
export type Members = Readonly<Record<string, unknown>>

export const isMembers = (value: unknown): value is Members =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

/** The object under `name`, which the body must have. */
export function envelope(body: unknown, name: string, missing: EvsCode, malformed: EvsCode) {
  if (body === undefined || body === null) throw refuse(missing)
  if (!isMembers(body)) throw refuse(malformed)
  const inner = body[name]
  if (inner === undefined || inner === null) throw refuse(missing)
  if (!isMembers(inner)) throw refuse(malformed)
  return inner
}

export function textMember(members: Members, name: string, code: EvsCode): string | null {
  const value = members[name] ?? null
  if (value === null || isVolumeText(value)) return value
  throw refuse(code)
}

/** Whole gigabytes; a fraction is cut off. */
export function sizeOf(value: unknown): number {
  if (typeof value !== 'number' || !(value >= 1) || value >= VOLUME_GB_MAX + 1) {
    throw refuse('EVS.1010')
  }
  return Math.trunc(value)
}

const METADATA_BYTES_MAX = 1_048_576

/** A map of text to text; keys and values of at most 255 characters. */
export function metadataMember(members: Members): Record<string, string> | null {
  const value = members['metadata'] ?? null
  if (value === null) return null
  if (!isMembers(value)) throw refuse('EVS.1018', 'metadata: must be an object.')
  const entries = Object.entries(value)
  if (Buffer.byteLength(JSON.stringify(value)) > METADATA_BYTES_MAX) throw refuse('EVS.1005')
  for (const [key, text] of entries) {
    if (typeof text !== 'string') throw refuse('EVS.1018', `metadata.${key}: must be text.`)
    if (key.length > 255 || text.length > 255) {
      throw refuse('EVS.5400', 'metadata: keys and values of at most 255 characters.')
    }
  }
  const metadata = Object.fromEntries(entries) as Record<string, string>
  // Promising encryption and not doing it would be worse than refusing.
  if ((metadata['__system__encrypted'] ?? '0') !== '0') throw refuse('EVS.2041')
  return metadata
}

/** Keys that say how a disk was made, or what the service knows of it. */
const isOfService = (key: string): boolean => key.startsWith('__system__') || OF_SERVICE.has(key)
const OF_SERVICE: ReadonlySet<string> = new Set([
  'hw:passthrough',
  'full_clone',
  'readonly',
  'attached_mode',
])

/** A change of metadata of a disk that has `before`: keys of the service may be repeated as they are, and no more. */
export function checkMetadataChange(
  before: Readonly<Record<string, string>>,
  change: Readonly<Record<string, string | null>>,
): void {
  const bad = Object.entries(change).find(
    ([key, value]) => isOfService(key) && before[key] !== value,
  )
  if (bad !== undefined) throw refuse('EVS.2047', `metadata: ${bad[0]} is not changed like this.`)
}

/** Metadata of a new disk: keys that choose how it is made have values of their own. */
export function checkNewMetadata(metadata: Readonly<Record<string, string>>): void {
  const passed = metadata['hw:passthrough']
  if (passed !== undefined && passed !== 'true' && passed !== 'false') throw refuse('EVS.1057')
  const cloned = metadata['full_clone']
  if (cloned !== undefined && cloned !== '0' && cloned !== '1') throw refuse('EVS.1063')
}

export function booleanMember(members: Members, name: string, code: EvsCode): boolean {
  const value = members[name] ?? false
  if (typeof value === 'boolean') return value
  if (value === 'true' || value === 'false') return value === 'true'
  throw refuse(code)
}
