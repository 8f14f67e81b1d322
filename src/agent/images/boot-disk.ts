import { assert } from '#base/assert.ts'
import { ISO_SECTOR, type IsoFile, isoImage, type PlacedFile, placeFiles } from './iso.ts'

/* The layout of a disk that boots Linux by BIOS.
 *
 *     0                MBR: boot code of the isolinux package (isohdpfx.bin) and the partition table
 *     0 ... 32 MiB     partition 1, an ISO file system: ISOLINUX, kernel, initial file system
 *     32 ... 96 MiB    partition 2, ext4, which the guest mounts on /data
 *
 *   BIOS ──► MBR ──► isolinux.bin, at the sector noted in the MBR ──► isolinux.cfg ──► kernel and initial file system
 *
 * ISOLINUX's two files are used as the package has them but for the numbers that `isohybrid` and `mkisofs -boot-info-table` also put there.
 */

const MIB = 1024 * 1024
export const BOOT_BYTES = 32 * MIB
export const DATA_BYTES = 64 * MIB
export const DISK_BYTES = BOOT_BYTES + DATA_BYTES
/** Of the partition table, in bytes. */
const SECTOR = 512

const MBR_CODE_BYTES = 432
const PARTITION_TABLE = 446
/** Hidden: nobody but the boot code has use for it. */
const TYPE_BOOT = 0x17
const TYPE_LINUX = 0x83
const ACTIVE = 0x80

/** At byte 64 of an isolinux.bin that can be started from a hard disk. */
const HYBRID_SIGNATURE = 0x7078c0fb
const BOOT_INFO = 8
const CHECKSUM_FROM = 64
const DESCRIPTOR_SECTOR = 16

export interface BootFiles {
  /** isohdpfx.bin */
  readonly mbr: Buffer
  /** isolinux.bin */
  readonly loader: Buffer
  /** ldlinux.c32, which isolinux.bin loads first */
  readonly loaderCore: Buffer
  readonly kernel: Buffer
  /** gzip of a cpio archive */
  readonly initialFiles: Buffer
  readonly commandLine: string
  /** Disk signature, 32 bits. */
  readonly signature: number
}

/** What stands before the second partition; `BOOT_BYTES` long at most. Throws an Error for files that are not what they should be. */
export function bootArea(files: BootFiles): Buffer {
  const config = [
    'DEFAULT linux',
    'PROMPT 0',
    'LABEL linux',
    ' LINUX /vmlinuz',
    ' INITRD /initrd.gz',
    ` APPEND ${files.commandLine}`,
    '',
  ].join('\n')
  const plain: IsoFile[] = [
    { name: 'ISOLINUX.BIN', bytes: files.loader },
    { name: 'LDLINUX.C32', bytes: files.loaderCore },
    { name: 'ISOLINUX.CFG', bytes: Buffer.from(config) },
    { name: 'VMLINUZ.', bytes: files.kernel },
    { name: 'INITRD.GZ', bytes: files.initialFiles },
  ]
  const placed = placeFiles(plain)
  const loader = placed[0]
  assert(loader !== undefined, 'the loader is the first file')
  const image = isoImage([withBootInfo(loader), ...placed.slice(1)])
  if (image.length > BOOT_BYTES) {
    throw new Error(`kernel and initial files need ${image.length} bytes, more than ${BOOT_BYTES}`)
  }
  masterBootRecord(files, loader.sector).copy(image, 0)
  return image
}

function withBootInfo(loader: PlacedFile): PlacedFile {
  if (
    loader.bytes.length < CHECKSUM_FROM + 4 ||
    loader.bytes.readUInt32LE(CHECKSUM_FROM) !== HYBRID_SIGNATURE
  ) {
    throw new Error('isolinux.bin of the package cannot be started from a hard disk')
  }
  const bytes = Buffer.concat([loader.bytes, Buffer.alloc(-loader.bytes.length & 3)])
  let sum = 0
  for (let at = CHECKSUM_FROM; at < bytes.length; at += 4)
    sum = (sum + bytes.readUInt32LE(at)) >>> 0
  bytes.writeUInt32LE(DESCRIPTOR_SECTOR, BOOT_INFO)
  bytes.writeUInt32LE(loader.sector, BOOT_INFO + 4)
  bytes.writeUInt32LE(bytes.length, BOOT_INFO + 8)
  bytes.writeUInt32LE(sum, BOOT_INFO + 12)
  return { ...loader, bytes }
}

function masterBootRecord(files: BootFiles, loaderSector: number): Buffer {
  if (files.mbr.length !== MBR_CODE_BYTES) {
    throw new Error(`isohdpfx.bin has ${files.mbr.length} bytes, expected ${MBR_CODE_BYTES}`)
  }
  const mbr = Buffer.alloc(SECTOR)
  files.mbr.copy(mbr)
  mbr.writeUInt32LE(loaderSector * (ISO_SECTOR / SECTOR), MBR_CODE_BYTES)
  mbr.writeUInt32LE(files.signature >>> 0, 440)
  partition(ACTIVE, TYPE_BOOT, 0, BOOT_BYTES).copy(mbr, PARTITION_TABLE)
  partition(0, TYPE_LINUX, BOOT_BYTES, DATA_BYTES).copy(mbr, PARTITION_TABLE + 16)
  mbr.writeUInt16LE(0xaa55, 510)
  return mbr
}

/** Cylinders, heads and sectors are left at their greatest: everybody reads the linear numbers. */
function partition(flag: number, type: number, from: number, bytes: number): Buffer {
  const entry = Buffer.from([
    flag,
    0xfe,
    0xff,
    0xff,
    type,
    0xfe,
    0xff,
    0xff,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
  ])
  entry.writeUInt32LE(from / SECTOR, 8)
  entry.writeUInt32LE(bytes / SECTOR, 12)
  return entry
}
