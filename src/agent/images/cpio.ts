import { assert } from '#base/assert.ts'

/* The archive that the Linux kernel unpacks as its first file system: cpio in the "newc" form. Each member is a header of 110 letters
 * (a magic and thirteen hexadecimal numbers), its name, and its bytes, both padded to four. No times: the same members give the same bytes. */

export interface CpioMember {
  /** Without a leading slash. */
  readonly name: string
  readonly kind: 'file' | 'directory' | 'link'
  /** Of a link: where it points to. */
  readonly bytes: Uint8Array
  /** Permission bits. */
  readonly mode: number
}

const TYPE_BITS = { file: 0o100000, directory: 0o040000, link: 0o120000 } as const
const END = 'TRAILER!!!'

/** Parents must come before what is in them. */
export function cpioArchive(members: readonly CpioMember[]): Buffer {
  const parts: Uint8Array[] = []
  members.forEach(({ name, kind, bytes, mode }, index) => {
    assert(name.length > 0 && !name.startsWith('/'), 'names in the archive are relative')
    parts.push(header(index + 1, TYPE_BITS[kind] | mode, bytes.length, name))
    parts.push(bytes, Buffer.alloc(-bytes.length & 3))
  })
  parts.push(header(0, 0, 0, END))
  return Buffer.concat(parts)
}

function header(inode: number, mode: number, length: number, name: string): Buffer {
  const nameBytes = Buffer.byteLength(name) + 1
  // inode, mode, uid, gid, links, mtime, length, device and its minor, special device and its minor, length of the name, checksum
  const numbers = [inode, mode, 0, 0, 1, 0, length, 0, 0, 0, 0, nameBytes, 0]
  const text = `070701${numbers.map((n) => n.toString(16).padStart(8, '0')).join('')}${name}\0`
  return Buffer.from(text.padEnd(Math.ceil(text.length / 4) * 4, '\0'), 'latin1')
}
