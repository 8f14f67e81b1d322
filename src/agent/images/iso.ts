import { assert } from '#base/assert.ts'

/* The smallest ISO 9660 file system that ISOLINUX reads: one directory, contiguous files, short names. It was chosen because it can be
 * written without any tool, and because ISOLINUX is a file that needs no installation, only some numbers put into it.
 *
 *     sector  0..15   left alone: the first 512 bytes of the disk are its master boot record
 *             16      volume descriptor        17  end of descriptors
 *             18, 19  path tables (L, M)       20  root directory
 *             21...   files
 */

/** Of ISO 9660, in bytes. */
export const ISO_SECTOR = 2048
const DESCRIPTOR = 16
const PATH_TABLE_L = 18
const PATH_TABLE_M = 19
const ROOT = 20
const FIRST_FILE = 21
/** 1980-01-01, years since 1900 first; a fixed one, so that the same files give the same bytes. */
const DATE = Buffer.from([80, 1, 1, 0, 0, 0, 0])

export interface IsoFile {
  /** Eight and three capital letters, digits or underscores: `LDLINUX.C32`. */
  readonly name: string
  readonly bytes: Buffer
}

export interface PlacedFile extends IsoFile {
  /** Where it begins, in sectors. */
  readonly sector: number
}

/** Places of the files in the order given. */
export function placeFiles(files: readonly IsoFile[]): readonly PlacedFile[] {
  let sector = FIRST_FILE
  return files.map((file) => {
    assert(/^[A-Z0-9_]{1,8}\.[A-Z0-9_]{0,3}$/.test(file.name), 'a short name')
    const placed = { ...file, sector }
    sector += Math.ceil(file.bytes.length / ISO_SECTOR)
    return placed
  })
}

/** The whole file system, a whole number of sectors. */
export function isoImage(files: readonly PlacedFile[]): Buffer {
  const last = files.at(-1)
  assert(last !== undefined, 'a file system without files boots nothing')
  const sectors = last.sector + Math.ceil(last.bytes.length / ISO_SECTOR)
  const image = Buffer.alloc(sectors * ISO_SECTOR)
  const at = (sector: number) => sector * ISO_SECTOR
  volumeDescriptor(sectors).copy(image, at(DESCRIPTOR))
  image.set(Buffer.from('\xffCD001\x01', 'latin1'), at(DESCRIPTOR + 1))
  pathTable('little').copy(image, at(PATH_TABLE_L))
  pathTable('big').copy(image, at(PATH_TABLE_M))
  rootDirectory(files).copy(image, at(ROOT))
  for (const { sector, bytes } of files) bytes.copy(image, at(sector))
  return image
}

function volumeDescriptor(sectors: number): Buffer {
  const d = Buffer.alloc(ISO_SECTOR)
  d.write('\x01CD001\x01', 0, 'latin1')
  d.fill(0x20, 8, 72)
  d.write('HOLDFAST', 40, 'latin1')
  both32(sectors).copy(d, 80)
  both16(1).copy(d, 120)
  both16(1).copy(d, 124)
  both16(ISO_SECTOR).copy(d, 128)
  both32(PATH_TABLE_BYTES).copy(d, 132)
  d.writeUInt32LE(PATH_TABLE_L, 140)
  d.writeUInt32BE(PATH_TABLE_M, 148)
  directoryRecord('\0', ROOT, ISO_SECTOR, true).copy(d, 156)
  d.fill(0x20, 190, 813)
  for (const date of [813, 830, 847, 864]) d.write('1980010100000000', date, 'latin1')
  d[881] = 1
  return d
}

const PATH_TABLE_BYTES = 10

function pathTable(order: 'little' | 'big'): Buffer {
  const table = Buffer.alloc(PATH_TABLE_BYTES)
  table[0] = 1
  if (order === 'little') table.writeUInt32LE(ROOT, 2)
  else table.writeUInt32BE(ROOT, 2)
  if (order === 'little') table.writeUInt16LE(1, 6)
  else table.writeUInt16BE(1, 6)
  return table
}

function rootDirectory(files: readonly PlacedFile[]): Buffer {
  const sorted = files.toSorted((a, b) => (a.name < b.name ? -1 : 1))
  const records = Buffer.concat([
    directoryRecord('\0', ROOT, ISO_SECTOR, true),
    directoryRecord('\x01', ROOT, ISO_SECTOR, true),
    ...sorted.map(({ name, sector, bytes }) =>
      directoryRecord(`${name};1`, sector, bytes.length, false),
    ),
  ])
  assert(records.length <= ISO_SECTOR, 'the directory fits its sector')
  return records
}

function directoryRecord(
  name: string,
  sector: number,
  bytes: number,
  isDirectory: boolean,
): Buffer {
  const length = 33 + name.length + ((name.length + 1) % 2)
  const record = Buffer.alloc(length)
  record[0] = length
  both32(sector).copy(record, 2)
  both32(bytes).copy(record, 10)
  DATE.copy(record, 18)
  record[25] = isDirectory ? 2 : 0
  both16(1).copy(record, 28)
  record[32] = name.length
  record.write(name, 33, 'latin1')
  return record
}

/** Numbers stand in both byte orders. */
function both32(value: number): Buffer {
  const bytes = Buffer.alloc(8)
  bytes.writeUInt32LE(value, 0)
  bytes.writeUInt32BE(value, 4)
  return bytes
}

function both16(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt16LE(value, 0)
  bytes.writeUInt16BE(value, 2)
  return bytes
}
