import koffi from 'koffi'

/* A client that waits for each answer: asks libnbd, which fio's NBD engine asks as well, and says what each request took. Its calls block this
 * process, which does nothing else, so that nothing stands between the answer and the clock.
 *
 * Over the channel to its parent: in {"uri", "kind", "seconds", "sizeBytes"}, out {"writes", "flushes"} in microseconds. */

/** `flush`: a flush after each write, told apart from it; `durable`: a write with FUA. */
export type Kind = 'write' | 'flush' | 'durable'

export interface Wanted {
  readonly uri: string
  readonly kind: Kind
  readonly seconds: number
  /** Writes go to random places below it. */
  readonly sizeBytes: number
}

export interface Times {
  readonly writes: readonly number[]
  /** One for each write; none unless flushes were wanted. */
  readonly flushes: readonly number[]
}

const BLOCK_BYTES = 4096
const FUA = 1

const library = koffi.load('libnbd.so.0')
const create = library.func('void *nbd_create(void)')
const connect = library.func('int nbd_connect_uri(void *nbd, const char *uri)')
const write = library.func(
  'int nbd_pwrite(void *nbd, void *bytes, size_t count, uint64_t offset, uint32_t flags)',
)
const flush = library.func('int nbd_flush(void *nbd, uint32_t flags)')
const close = library.func('void nbd_close(void *nbd)')
const lastError = library.func('const char *nbd_get_error(void)')

const good = (result: unknown): void => {
  if (result !== 0) throw new Error(String(lastError()))
}

process.on('message', ({ uri, kind, seconds, sizeBytes }: Wanted) => {
  const nbd: unknown = create()
  good(connect(nbd, uri))
  const block = Buffer.alloc(BLOCK_BYTES, 1)
  const flags = kind === 'durable' ? FUA : 0
  const writes: number[] = []
  const flushes: number[] = []
  const endMs = performance.now() + seconds * 1000
  for (let began = performance.now(); began < endMs; ) {
    const at = Math.floor(Math.random() * (sizeBytes / BLOCK_BYTES)) * BLOCK_BYTES
    began = performance.now()
    good(write(nbd, block, BLOCK_BYTES, at, flags))
    const written = performance.now()
    writes.push((written - began) * 1000)
    if (kind !== 'flush') continue
    good(flush(nbd, 0))
    flushes.push((performance.now() - written) * 1000)
  }
  close(nbd)
  const times: Times = { writes, flushes }
  process.send?.(times)
})
