import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import { hasCode, readTextIfPresent } from '#base/system/files.ts'
import { recipe } from './built-in.ts'
import { decodeRecord, type ImageRecord } from './record.ts'

/* Names in the directory of images.
 *
 *     DIR/NAME.raw       the image, sparse
 *     DIR/NAME.json      its record: size and checksum
 *     DIR/packages/      see packages.ts
 *     DIR/lock           held by who makes or checks an image
 *     DIR/.new-NAME.raw  being made; worth nothing
 *
 * A built-in image exists when file and record fit together and are of the present recipe. Anything else with its name is replaced.
 */

export const imagePath = (directory: string, name: string): string => join(directory, `${name}.raw`)
export const recordPath = (directory: string, name: string): string =>
  join(directory, `${name}.json`)
export const lockPath = (directory: string): string => join(directory, 'lock')

export const IMAGE_NAME = /^[0-9a-zA-Z][0-9a-zA-Z-]{0,63}$/

export interface FoundFile {
  readonly sizeBytes: number
  readonly modifiedNs: string
}

/** What is there under this name, and its record if it is one of this very file. undefined: no such file. */
export async function findImage(
  directory: string,
  name: string,
): Promise<{ readonly file: FoundFile; readonly record: ImageRecord | undefined } | undefined> {
  const file = await findFile(imagePath(directory, name))
  if (file === undefined) return undefined
  const record = decodeRecord(await readTextIfPresent(recordPath(directory, name)))
  const fits =
    record !== undefined &&
    record.image === name &&
    record.sizeBytes === file.sizeBytes &&
    record.modifiedNs === file.modifiedNs
  return { file, record: fits ? record : undefined }
}

export async function findFile(path: string): Promise<FoundFile | undefined> {
  try {
    const { size, mtimeNs } = await stat(path, { bigint: true })
    return { sizeBytes: Number(size), modifiedNs: String(mtimeNs) }
  } catch (error) {
    if (hasCode(error, 'ENOENT')) return undefined
    throw error
  }
}

/** The record of a built-in image that need not be made (again). */
export async function findBuilt(directory: string, name: string): Promise<ImageRecord | undefined> {
  const record = (await findImage(directory, name))?.record
  return record?.recipe === recipe() ? record : undefined
}
