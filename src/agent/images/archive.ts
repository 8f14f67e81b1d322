/* Files out of a tar archive while it streams by: of a kernel package, 17 MB of 106. */

const BLOCK = 512

/** Bytes of the regular files whose path is wanted, by path without a leading `./`. Understands what dpkg writes: ustar with GNU's long names. */
export async function filesOfTar(
  archive: AsyncIterable<Buffer>,
  wanted: (path: string) => boolean,
): Promise<ReadonlyMap<string, Buffer>> {
  const found = new Map<string, Buffer>()
  const source = new Blocks(archive)
  let longName: string | undefined
  for (;;) {
    const header = await source.read(BLOCK)
    if (header === undefined || header.every((byte) => byte === 0)) return found
    const size = Number.parseInt(text(header, 124, 12).trim() || '0', 8)
    if (!Number.isSafeInteger(size)) throw new Error('the archive of a package cannot be read')
    const kind = String.fromCharCode(header[156] ?? 0)
    const padded = Math.ceil(size / BLOCK) * BLOCK
    const prefix = text(header, 257, 5) === 'ustar' ? text(header, 345, 155) : ''
    const plain = text(header, 0, 100)
    const name = longName ?? (prefix === '' ? plain : `${prefix}/${plain}`)
    const path = name.replace(/^\.\//, '')
    longName = undefined
    const isFile = kind === '0' || kind === '\0'
    if (kind === 'L') {
      longName = text((await source.read(padded)) ?? Buffer.alloc(0), 0, size)
    } else if (isFile && wanted(path)) {
      const bytes = await source.read(padded)
      if (bytes === undefined) throw new Error('the archive of a package ends too early')
      found.set(path, bytes.subarray(0, size))
    } else {
      await source.skip(padded)
    }
  }
}

function text(bytes: Buffer, at: number, length: number): string {
  const end = bytes.indexOf(0, at)
  return bytes.toString('utf8', at, end < 0 || end > at + length ? at + length : end)
}

/** Cuts a stream to measure. */
class Blocks {
  readonly #from: AsyncIterator<Buffer>
  #rest: Buffer = Buffer.alloc(0)

  constructor(from: AsyncIterable<Buffer>) {
    this.#from = from[Symbol.asyncIterator]()
  }

  /** undefined when less than `length` bytes are left. */
  async read(length: number): Promise<Buffer | undefined> {
    const parts: Buffer[] = []
    for (let missing = length; missing > 0; ) {
      if (this.#rest.length === 0 && !(await this.#more())) return undefined
      const part = this.#rest.subarray(0, missing)
      this.#rest = this.#rest.subarray(part.length)
      parts.push(part)
      missing -= part.length
    }
    return Buffer.concat(parts, length)
  }

  async skip(length: number): Promise<void> {
    for (let missing = length; missing > 0; ) {
      if (this.#rest.length === 0 && !(await this.#more())) return
      const part = Math.min(missing, this.#rest.length)
      this.#rest = this.#rest.subarray(part)
      missing -= part
    }
  }

  async #more(): Promise<boolean> {
    const { done, value } = await this.#from.next()
    if (done === true) return false
    this.#rest = value
    return true
  }
}
