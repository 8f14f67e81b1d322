/* DIR/VOLUME.json of the fills; docs/formats/images.md describes it for readers. */

export interface FillRecord {
  readonly volume: string
  /** The request. */
  readonly fill: string
  readonly image: string
  /** waiting: nothing was written yet · filling: the volume is part image, part what it was · filled */
  readonly state: 'waiting' | 'filling' | 'filled'
  /** Of the image that is being copied; empty while waiting. */
  readonly sha256: string
  readonly totalBytes: number
  /** So much of it is in the volume, durably. */
  readonly doneBytes: number
  /** Requests that ended before this one, newest first. */
  readonly earlier: readonly string[]
}

const FORMAT = 1
/** Requests remembered per volume. A volume is filled once in its life, as a rule. */
export const EARLIER_MAX = 16

export function encodeFill(record: FillRecord): string {
  const { volume, fill, image, state, sha256, totalBytes, doneBytes, earlier } = record
  const json = {
    format: FORMAT,
    volume,
    fill,
    image,
    state,
    sha256,
    total_bytes: totalBytes,
    done_bytes: doneBytes,
    earlier,
  }
  return `${JSON.stringify(json, null, 2)}\n`
}

/** Throws an Error for what is not of this format: an agent that cannot tell whether a volume is whole must not serve it. */
export function decodeFill(text: string): FillRecord {
  const json = JSON.parse(text) as Record<string, unknown>
  const { format, volume, fill, image, state, sha256, total_bytes, done_bytes, earlier } = json
  if (format !== FORMAT) throw new Error(`format ${String(format)}, this version reads ${FORMAT}`)
  const isWhole =
    typeof volume === 'string' &&
    typeof fill === 'string' &&
    typeof image === 'string' &&
    (state === 'waiting' || state === 'filling' || state === 'filled') &&
    typeof sha256 === 'string' &&
    typeof total_bytes === 'number' &&
    typeof done_bytes === 'number' &&
    Array.isArray(earlier) &&
    earlier.every((one) => typeof one === 'string')
  if (!isWhole) throw new Error('a member is missing or of the wrong type')
  return {
    volume,
    fill,
    image,
    state,
    sha256,
    totalBytes: total_bytes,
    doneBytes: done_bytes,
    earlier: earlier as readonly string[],
  }
}
