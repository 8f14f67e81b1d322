import { closeSync, openSync, read, writeSync } from 'node:fs'
import { statfs } from 'node:fs/promises'
import { constants } from 'node:os'
import { promisify } from 'node:util'
import koffi from 'koffi'
import { type ForgetfulTree, type Node, PAGE_BYTES, TreeError } from './forgetful-tree.ts'

/* A forgetful tree as a mounted file system: the FUSE protocol (version 7.31) over /dev/fuse, without any library.
 *
 * Writes go straight through to here; only pages written through a memory mapping stay in the kernel until it writes them back or
 * somebody syncs, and are lost with the mount. Locks and memory mappings are the kernel's own business.
 */

const OP = {
  LOOKUP: 1,
  FORGET: 2,
  GETATTR: 3,
  SETATTR: 4,
  MKNOD: 8,
  MKDIR: 9,
  UNLINK: 10,
  RMDIR: 11,
  RENAME: 12,
  OPEN: 14,
  READ: 15,
  WRITE: 16,
  STATFS: 17,
  RELEASE: 18,
  FSYNC: 20,
  FLUSH: 25,
  INIT: 26,
  OPENDIR: 27,
  READDIR: 28,
  RELEASEDIR: 29,
  FSYNCDIR: 30,
  CREATE: 35,
  INTERRUPT: 36,
  DESTROY: 38,
  BATCH_FORGET: 42,
  FALLOCATE: 43,
  RENAME2: 45,
  LSEEK: 46,
  SYNCFS: 50,
} as const

const IN_HEADER_BYTES = 40
const OUT_HEADER_BYTES = 16
const PAGES_MAX = 64
const WRITE_BYTES_MAX = PAGES_MAX * PAGE_BYTES
const BUFFER_BYTES = WRITE_BYTES_MAX + 8192
const ATTR_BYTES = 88

const INIT_BIG_WRITES = 1 << 5
const INIT_MAX_PAGES = 1 << 22
const OPEN_KEEP_CACHE = 2
const SET_MODE = 1
const SET_SIZE = 8
const KEEP_SIZE = 1
const PUNCH_HOLE = 2
const ZERO_RANGE = 16
const SEEK_DATA = 3
const SEEK_HOLE = 4
const DETACH = 2
const FOR_EVER_S = 3600n

const { errno } = constants
const readAsync = promisify(read)

interface Request {
  readonly op: number
  readonly unique: bigint
  readonly node: number
  readonly body: Buffer
}

const libc = koffi.load('libc.so.6')
const mountCall = libc.func(
  'int mount(const char *source, const char *target, const char *type, unsigned long flags, const char *data)',
) as unknown as (s: string, t: string, k: string, f: number, d: string) => number
const umountCall = libc.func('int umount2(const char *target, int flags)') as unknown as {
  async(target: string, flags: number, done: (error: Error | null, result: number) => void): void
}

export class FuseMount {
  readonly #tree: ForgetfulTree
  readonly #point: string
  readonly #fd: number
  /** The machine has no power: nothing changes any more, whatever is asked. */
  dead = false
  readonly #ended: Promise<void>
  #ending = false

  /** Mounts at once; the requests are served in the background. */
  constructor(tree: ForgetfulTree, point: string) {
    this.#tree = tree
    this.#point = point
    this.#fd = openSync('/dev/fuse', 'r+')
    const data = `fd=${this.#fd},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions`
    if (mountCall('forgetful', point, 'fuse', 0, data) !== 0) {
      const number = koffi.errno()
      closeSync(this.#fd)
      throw new Error(`mounting ${point} failed with error ${number}`)
    }
    this.#ended = this.#serve()
  }

  /**
   * Ends the connection and takes the mount away. What the kernel still had in its memory is dropped: other mount namespaces may
   * hold copies of the mount, so that unmounting alone would end nothing. No process may use it any more.
   */
  async unmount(): Promise<void> {
    this.#ending = true
    // A request of our own wakes the reader, who then goes away.
    await Promise.all([statfs(this.#point).catch(() => undefined), this.#ended])
    await new Promise<void>((resolve, reject) => {
      umountCall.async(this.#point, DETACH, (error) => (error === null ? resolve() : reject(error)))
    })
  }

  async #serve(): Promise<void> {
    const buffer = Buffer.alloc(BUFFER_BYTES)
    while (!this.#ending) {
      let got: number
      try {
        got = (await readAsync(this.#fd, buffer, 0, buffer.length, null)).bytesRead
      } catch (error) {
        const { code } = error as { code?: string }
        if (code === 'ENOENT' || code === 'EINTR' || code === 'EAGAIN') continue // that request was taken back
        closeSync(this.#fd)
        if (code === 'ENODEV') return
        throw error
      }
      const request = {
        op: buffer.readUInt32LE(4),
        unique: buffer.readBigUInt64LE(8),
        node: Number(buffer.readBigUInt64LE(16)),
        body: buffer.subarray(IN_HEADER_BYTES, got),
      }
      this.#answer(request)
    }
    closeSync(this.#fd)
  }

  #answer(request: Request): void {
    let data: Buffer | undefined
    let error = 0
    try {
      data = this.#handle(request)
      if (data === undefined) return
    } catch (failure) {
      if (failure instanceof TreeError) error = -errno[failure.code]
      else if (failure instanceof Unsupported) error = -errno.ENOSYS
      else throw failure
      data = Buffer.alloc(0)
    }
    const out = Buffer.alloc(OUT_HEADER_BYTES + data.length)
    out.writeUInt32LE(out.length, 0)
    out.writeInt32LE(error, 4)
    out.writeBigUInt64LE(request.unique, 8)
    data.copy(out, OUT_HEADER_BYTES)
    try {
      writeSync(this.#fd, out)
    } catch (failure) {
      // The process that asked was killed meanwhile, or the mount is gone.
      const { code } = failure as { code?: string }
      if (code !== 'ENOENT' && code !== 'ENODEV') throw failure
    }
  }

  /** Undefined: the request has no answer. */
  #handle(request: Request): Buffer | undefined {
    const { op, node, body } = request
    const tree = this.#tree
    if (this.dead && CHANGES.has(op)) return op === OP.WRITE ? written(body) : EMPTY
    switch (op) {
      case OP.INIT:
        return init(body)
      case OP.FORGET:
      case OP.BATCH_FORGET:
      case OP.INTERRUPT:
        return undefined
      case OP.LOOKUP:
        return this.#entry(tree.lookUp(node, text(body, 0)))
      case OP.GETATTR:
        return this.#attributes(tree.node(node))
      case OP.SETATTR:
        return this.#setAttributes(node, body)
      case OP.CREATE: {
        const made = tree.createFile(node, text(body, 16), body.readUInt32LE(4))
        return Buffer.concat([this.#entry(made), opened()])
      }
      case OP.MKNOD: {
        // Sockets: only their names live here.
        const made = tree.createFile(node, text(body, 16), 0)
        made.mode = body.readUInt32LE(0)
        return this.#entry(made)
      }
      case OP.MKDIR:
        return this.#entry(tree.createDirectory(node, text(body, 8), body.readUInt32LE(0)))
      case OP.UNLINK:
      case OP.RMDIR:
        tree.remove(node, text(body, 0))
        return EMPTY
      case OP.RENAME:
      case OP.RENAME2: {
        const names = op === OP.RENAME ? 8 : 16
        const from = text(body, names)
        const to = text(body, names + Buffer.byteLength(from) + 1)
        tree.rename(node, from, Number(body.readBigUInt64LE(0)), to)
        return EMPTY
      }
      case OP.OPEN:
      case OP.OPENDIR:
        tree.node(node)
        return opened()
      case OP.READ:
        return tree.read(node, Number(body.readBigUInt64LE(8)), body.readUInt32LE(16))
      case OP.WRITE: {
        const count = body.readUInt32LE(16)
        tree.write(node, Number(body.readBigUInt64LE(8)), body.subarray(40, 40 + count))
        return written(body)
      }
      case OP.FALLOCATE:
        return this.#fallocate(node, body)
      case OP.LSEEK:
        return this.#seek(node, body)
      case OP.READDIR:
        return this.#list(node, Number(body.readBigUInt64LE(8)), body.readUInt32LE(16))
      case OP.FSYNC:
      case OP.FSYNCDIR:
        tree.sync(node)
        return EMPTY
      case OP.STATFS:
        return this.#space()
      case OP.FLUSH:
      case OP.RELEASE:
      case OP.RELEASEDIR:
      case OP.DESTROY:
        return EMPTY
      default:
        throw new Unsupported()
    }
  }

  #setAttributes(node: number, body: Buffer): Buffer {
    const valid = body.readUInt32LE(0)
    const target = this.#tree.node(node)
    if ((valid & SET_SIZE) !== 0) this.#tree.truncate(node, Number(body.readBigUInt64LE(16)))
    if ((valid & SET_MODE) !== 0) target.mode = body.readUInt32LE(68)
    return this.#attributes(target)
  }

  #fallocate(node: number, body: Buffer): Buffer {
    const offset = Number(body.readBigUInt64LE(8))
    const length = Number(body.readBigUInt64LE(16))
    const mode = body.readUInt32LE(24)
    if ((mode & ~(KEEP_SIZE | PUNCH_HOLE | ZERO_RANGE)) !== 0) throw new Unsupported()
    if ((mode & (PUNCH_HOLE | ZERO_RANGE)) !== 0) {
      this.#tree.clear(node, offset, length, (mode & KEEP_SIZE) === 0)
    } else if ((mode & KEEP_SIZE) === 0) {
      this.#tree.truncate(node, Math.max(this.#tree.file(node).size, offset + length))
    }
    return EMPTY
  }

  #seek(node: number, body: Buffer): Buffer {
    const whence = body.readUInt32LE(16)
    if (whence !== SEEK_DATA && whence !== SEEK_HOLE) throw new Unsupported()
    const what = whence === SEEK_DATA ? 'data' : 'hole'
    const out = Buffer.alloc(8)
    out.writeBigUInt64LE(BigInt(this.#tree.seek(node, Number(body.readBigUInt64LE(8)), what)), 0)
    return out
  }

  #list(node: number, from: number, bytesMax: number): Buffer {
    const directory = this.#tree.directory(node)
    const all: [string, number, number][] = [
      ['.', node, 4],
      ['..', directory.parent, 4],
      ...[...directory.entries].map(([name, { id, kind }]): [string, number, number] => [
        name,
        id,
        kind === 'file' ? 8 : 4,
      ]),
    ]
    const parts: Buffer[] = []
    let bytes = 0
    for (const [index, [name, id, type]] of all.entries()) {
      if (index < from) continue
      const named = Buffer.from(name)
      const entry = Buffer.alloc(Math.ceil((24 + named.length) / 8) * 8)
      entry.writeBigUInt64LE(BigInt(id), 0)
      entry.writeBigUInt64LE(BigInt(index + 1), 8)
      entry.writeUInt32LE(named.length, 16)
      entry.writeUInt32LE(type, 20)
      named.copy(entry, 24)
      if (bytes + entry.length > bytesMax) break
      parts.push(entry)
      bytes += entry.length
    }
    return Buffer.concat(parts)
  }

  #space(): Buffer {
    const out = Buffer.alloc(80)
    const pages = 1n << 20n
    const free = this.#tree.full ? 0n : pages / 2n
    for (const [index, value] of [pages, free, free, pages, free].entries()) {
      out.writeBigUInt64LE(value, index * 8)
    }
    out.writeUInt32LE(PAGE_BYTES, 40)
    out.writeUInt32LE(255, 44)
    out.writeUInt32LE(PAGE_BYTES, 48)
    return out
  }

  #entry(node: Node): Buffer {
    const head = Buffer.alloc(40)
    head.writeBigUInt64LE(BigInt(node.id), 0)
    head.writeBigUInt64LE(FOR_EVER_S, 16)
    head.writeBigUInt64LE(FOR_EVER_S, 24)
    return Buffer.concat([head, this.#attr(node)])
  }

  #attributes(node: Node): Buffer {
    const head = Buffer.alloc(16)
    head.writeBigUInt64LE(FOR_EVER_S, 0)
    return Buffer.concat([head, this.#attr(node)])
  }

  #attr(node: Node): Buffer {
    const out = Buffer.alloc(ATTR_BYTES)
    const isFile = node.kind === 'file'
    out.writeBigUInt64LE(BigInt(node.id), 0)
    out.writeBigUInt64LE(BigInt(isFile ? node.size : PAGE_BYTES), 8)
    out.writeBigUInt64LE(BigInt(isFile ? this.#tree.pages(node.id) * (PAGE_BYTES / 512) : 8), 16)
    out.writeUInt32LE(node.mode, 60)
    out.writeUInt32LE(isFile ? 1 : 2, 64)
    out.writeUInt32LE(PAGE_BYTES, 80)
    return out
  }
}

class Unsupported extends Error {}

const EMPTY = Buffer.alloc(0)

/** What changes something, and is ignored when the power is gone. */
const CHANGES: ReadonlySet<number> = new Set([
  OP.WRITE,
  OP.FSYNC,
  OP.FSYNCDIR,
  OP.UNLINK,
  OP.RMDIR,
  OP.RENAME,
  OP.RENAME2,
  OP.FALLOCATE,
])

function init(body: Buffer): Buffer {
  const out = Buffer.alloc(64)
  out.writeUInt32LE(7, 0)
  out.writeUInt32LE(31, 4)
  out.writeUInt32LE(body.readUInt32LE(8), 8)
  out.writeUInt32LE(INIT_BIG_WRITES | INIT_MAX_PAGES, 12)
  out.writeUInt16LE(16, 16)
  out.writeUInt16LE(12, 18)
  out.writeUInt32LE(WRITE_BYTES_MAX, 20)
  out.writeUInt32LE(1, 24)
  out.writeUInt16LE(PAGES_MAX, 28)
  return out
}

function opened(): Buffer {
  const out = Buffer.alloc(16)
  out.writeUInt32LE(OPEN_KEEP_CACHE, 8)
  return out
}

function written(body: Buffer): Buffer {
  const out = Buffer.alloc(8)
  out.writeUInt32LE(body.readUInt32LE(16), 0)
  return out
}

/** A name: bytes up to the zero. */
function text(body: Buffer, from: number): string {
  return body.toString('utf8', from, body.indexOf(0, from))
}
