import { decodeChecked, encodeChecked } from '#base/checked-json.ts'
import type { LeftCopy, Serving, VolumeLimit, VolumeRecord } from '../volume-store.ts'

/* meta.json of a volume; docs/formats/volume-files.md describes it for readers. Failure has a file of its own. */

export const META_FORMAT = 2
/** Without a checksum. */
const UNCHECKED_FORMAT = 1

export function encodeMeta(record: VolumeRecord): string {
  const { id, sizeBytes, createdMs, owner, serving, limit } = record
  const meta = {
    format: META_FORMAT,
    id,
    size_bytes: sizeBytes,
    created: new Date(createdMs).toISOString(),
    owner,
    serving,
    ...(limit === undefined ? {} : { limit: encodeLimit(limit) }),
  }
  return encodeChecked(meta, 2)
}

/** The record, or what is wrong with the text. */
export function decodeMeta(text: string): VolumeRecord | { readonly problem: string } {
  const found = decodeChecked(text)
  if (found === null) return { problem: 'not JSON, or changed since it was written' }
  const meta = found.value
  if (!isRecord(meta)) return { problem: 'not an object' }
  if (meta['format'] !== (found.checked ? META_FORMAT : UNCHECKED_FORMAT)) {
    const which = `format ${String(meta['format'])} ${found.checked ? 'with' : 'without'} checksum`
    return { problem: `${which}, this version reads ${META_FORMAT}` }
  }
  const { id, size_bytes: sizeBytes, created, owner } = meta
  const serving = decodeServing(meta['serving'])
  const createdMs = typeof created === 'string' ? Date.parse(created) : Number.NaN
  if (typeof id !== 'string') return { problem: 'id is no text' }
  if (typeof sizeBytes !== 'number' || !Number.isSafeInteger(sizeBytes) || sizeBytes <= 0) {
    return { problem: 'size_bytes is no positive whole number' }
  }
  if (typeof owner !== 'string') return { problem: 'owner is no text' }
  if (Number.isNaN(createdMs)) return { problem: 'created is no time' }
  if (serving === undefined) return { problem: 'serving is unknown' }
  const record = { id, sizeBytes, createdMs, owner, serving, failed: null }
  if (meta['limit'] === undefined) return record
  const limit = decodeLimit(meta['limit'])
  return limit === undefined ? { problem: 'limit is unknown' } : { ...record, limit }
}

const encodeLimit = ({ revision, iops, bytesPerSecond, readOnly }: VolumeLimit) => ({
  revision,
  iops,
  bytes_per_second: bytesPerSecond,
  read_only: readOnly,
})

function decodeLimit(value: unknown): VolumeLimit | undefined {
  if (!isRecord(value)) return undefined
  const { revision, iops, bytes_per_second: bytesPerSecond, read_only: readOnly } = value
  if (typeof revision !== 'number' || !Number.isSafeInteger(revision)) return undefined
  if (!isRate(iops) || !isRate(bytesPerSecond) || typeof readOnly !== 'boolean') return undefined
  return { revision, iops, bytesPerSecond, readOnly }
}

const isRate = (value: unknown): value is number | null =>
  value === null || (typeof value === 'number' && Number.isSafeInteger(value) && value > 0)

function decodeServing(value: unknown): Serving | undefined {
  if (!isRecord(value)) return undefined
  const { mode, reason, session, pair, left } = value
  if (mode === 'standalone') return { mode }
  if (mode === 'standby' && typeof reason === 'string') {
    const copy = decodeLeft(left)
    return copy === undefined ? { mode, reason } : { mode, reason, left: copy }
  }
  if (mode === 'session' && typeof session === 'string' && typeof pair === 'string') {
    return { mode, session, pair }
  }
  return undefined
}

/** One that cannot be read is none. */
function decodeLeft(value: unknown): LeftCopy | undefined {
  if (!isRecord(value)) return undefined
  const { session, epoch, torn } = value
  if (typeof session !== 'string' || !Number.isSafeInteger(epoch)) return undefined
  return { session, epoch: Number(epoch), ...(torn === true ? { torn } : {}) }
}

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)
