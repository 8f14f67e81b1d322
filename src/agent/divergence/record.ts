import Type, { type Static } from 'typebox'
import { Value } from 'typebox/value'
import { decodeChecked, encodeChecked } from '#base/checked-json.ts'

/* The manifest of a divergence record: DIR/divergences/ID.json, replaced as a whole. docs/formats/divergence.md has it for readers. The bytes and
 * the exact ranges are in the sealed snapshot of the same id. */

const Count = Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER })
const Text = Type.String({ maxLength: 500 })

export const StoredRange = Type.Object({ offset: Count, length: Count })

export const StoredVolume = Type.Object({
  volume: Type.String(),
  pair: Type.String(),
  size_bytes: Count,
  /** Kept ranges and their bytes; 0 while they are being put together. */
  ranges: Count,
  bytes: Count,
  /** What is to be kept; null: all that the snapshot has preserved. Emptied when it has been. */
  wanted: Type.Union([Type.Array(StoredRange), Type.Null()]),
})
export type StoredVolume = Static<typeof StoredVolume>

export const StoredRecord = Type.Object({
  /** 1: without a checksum. */
  version: Type.Union([Type.Literal(1), Type.Literal(2)]),
  /** Also the id of the snapshot. */
  divergence: Type.String(),
  session: Type.String(),
  site: Type.String(),
  winner: Type.String(),
  /** Whose client certificates may open the volumes: who may see the record. */
  owner: Type.String(),
  base_epoch: Count,
  epoch: Count,
  /** Wall clock, ms. */
  at: Count,
  why: Text,
  state: Type.Union([Type.Literal('keeping'), Type.Literal('kept'), Type.Literal('lost')]),
  reason: Type.Union([Text, Type.Null()]),
  volumes: Type.Array(StoredVolume),
})
export type StoredRecord = Static<typeof StoredRecord>

/** undefined: no manifest of these versions, or changed since it was written. */
export function decodeRecord(text: string): StoredRecord | undefined {
  const found = decodeChecked(text)
  if (found === null || !Value.Check(StoredRecord, found.value)) return undefined
  return found.value.version === (found.checked ? 2 : 1) ? found.value : undefined
}

export const encodeRecord = (record: StoredRecord): string =>
  encodeChecked({ ...record, version: 2 }, 1)
