/* NAME.json beside an image; docs/formats/images.md describes it for readers. */

export interface ImageRecord {
  readonly image: string
  readonly sizeBytes: number
  /** Of the whole image, hex. */
  readonly sha256: string
  /** Modification time of NAME.raw when the checksum was taken, ns since 1970: a changed file has no checksum yet. */
  readonly modifiedNs: string
  /** By what it was made; null: an image of the operator. */
  readonly recipe: string | null
}

const FORMAT = 1

export function encodeRecord(record: ImageRecord): string {
  const { image, sizeBytes, sha256, modifiedNs, recipe } = record
  const json = {
    format: FORMAT,
    image,
    size_bytes: sizeBytes,
    sha256,
    modified_ns: modifiedNs,
    recipe,
  }
  return `${JSON.stringify(json, null, 2)}\n`
}

/** undefined for a text that is not of this format: the image is looked at, or made, again. */
export function decodeRecord(text: string | undefined): ImageRecord | undefined {
  if (text === undefined) return undefined
  let json: unknown
  try {
    json = JSON.parse(text)
  } catch {
    return undefined
  }
  if (typeof json !== 'object' || json === null) return undefined
  const { format, image, size_bytes, sha256, modified_ns, recipe } = json as Record<string, unknown>
  const isWhole =
    format === FORMAT &&
    typeof image === 'string' &&
    typeof size_bytes === 'number' &&
    typeof sha256 === 'string' &&
    typeof modified_ns === 'string' &&
    (typeof recipe === 'string' || recipe === null)
  if (!isWhole) return undefined
  return { image, sizeBytes: size_bytes, sha256, modifiedNs: modified_ns, recipe }
}
