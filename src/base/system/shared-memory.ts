import koffi from 'koffi'

/* Files mapped into memory. What is stored there costs as much as any other store, and survives the death of the process, because
 * the pages belong to the kernel. It does not survive power loss.
 *
 * A store into a hole of a file on a full disk kills the process (SIGBUS), so map only files whose bytes were written before. */

const PROT_READ_WRITE = 3
const MAP_SHARED = 1

type Mmap = (at: null, n: number, prot: number, flags: number, fd: number, offset: number) => bigint
type Munmap = (at: bigint, n: number) => number
let calls: { readonly mmap: Mmap; readonly munmap: Munmap } | null | undefined

function load(): typeof calls {
  if (calls !== undefined) return calls
  try {
    const libc = koffi.load(null)
    calls = {
      mmap: libc.func(
        'void *mmap(void *at, size_t n, int prot, int flags, int fd, int64_t offset)',
      ) as unknown as Mmap,
      munmap: libc.func('int munmap(void *at, size_t n)') as unknown as Munmap,
    }
  } catch {
    calls = null
  }
  return calls
}

export interface SharedMemory {
  /** The file's bytes. Must not be touched after `unmap`. */
  readonly bytes: ArrayBuffer
  unmap(): void
}

/** The first `length` bytes of the file; null where files cannot be mapped. */
export function mapShared(fd: number, length: number): SharedMemory | null {
  const libc = load()
  if (libc === null || libc === undefined) return null
  const at = libc.mmap(null, length, PROT_READ_WRITE, MAP_SHARED, fd, 0)
  if (at === undefined || at === null || BigInt(at) === -1n) return null
  return { bytes: koffi.view(at, length), unmap: () => void libc.munmap(at, length) }
}
