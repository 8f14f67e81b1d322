import { createHash } from 'node:crypto'
import {
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statfsSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { hasCode } from '#base/system/files.ts'
import type { Log } from '#base/log.ts'

/* Failure marks that could not be stored beside their volume, because its disk is the one that failed.
 *
 *     DIR/VOLUMES-ID    one text of JSON per volume; VOLUMES is a hash of the volume store's own directory
 *
 * DIR lies in memory (tmpfs) where there is such a place, and so lives as long as the boot of the host. That is long enough: what makes a
 * copy without its mark dangerous is that everything else about it still counts as exact within one boot (decision 0104).
 *
 * Made only when a mark has to go there. A directory of somebody else, or one that others may write to, is not used: /dev/shm is
 * everybody's.
 */

export interface BootMark {
  readonly reason: string
  /** When the volume was created, ms: a mark of an older one of this name says nothing. null: not readable any more. */
  readonly createdMs: number | null
}

const TMPFS = 0x01021994
const RAMFS = 0x858458f6

/** Where marks go unless the configuration says: the first that is in memory and takes them. */
export function usualBootDirectories(): readonly string[] {
  const name = `holdfast-${process.getuid?.() ?? 0}`
  return [`/run/${name}`, `/dev/shm/${name}`]
}

export interface BootMarksOptions {
  /** Candidates; none has to exist. */
  readonly directories: readonly string[]
  /** Directory of the volume store. */
  readonly store: string
  readonly log: Log
}

export class BootMarks {
  readonly #directories: readonly string[]
  readonly #prefix: string
  readonly #log: Log

  constructor({ directories, store, log }: BootMarksOptions) {
    this.#directories = directories
    this.#prefix = `${createHash('sha256').update(resolve(store)).digest('hex').slice(0, 32)}-`
    this.#log = log
  }

  /** All marks of this store, by volume. A mark that cannot be read still is one. */
  all(): ReadonlyMap<string, BootMark> {
    const found = new Map<string, BootMark>()
    for (const directory of this.#directories) {
      if (!this.#isOurs(directory)) continue
      for (const name of readdirSync(directory)) {
        if (!name.startsWith(this.#prefix)) continue
        found.set(name.slice(this.#prefix.length), decode(readFileSync(join(directory, name))))
      }
    }
    return found
  }

  /** Survives the death of the process when it returns. Throws when no place takes it. */
  store(id: string, mark: BootMark): void {
    const problems: unknown[] = []
    const inMemory = this.#directories.filter(isInMemory)
    const others = this.#directories.filter((one) => !inMemory.includes(one))
    for (const directory of [...inMemory, ...others]) {
      try {
        mkdirSync(directory, { recursive: true, mode: 0o700 })
        if (!this.#isOurs(directory)) continue
        writeFileSync(join(directory, this.#prefix + id), `${JSON.stringify(mark)}\n`, {
          mode: 0o600,
        })
        return
      } catch (error) {
        problems.push(error)
      }
    }
    throw new AggregateError(problems, `no place for the mark: ${this.#directories.join(', ')}`)
  }

  remove(id: string): void {
    for (const directory of this.#directories) {
      if (this.#isOurs(directory)) rmSync(join(directory, this.#prefix + id), { force: true })
    }
  }

  #isOurs(directory: string): boolean {
    const found = lstatSync(directory, { throwIfNoEntry: false })
    if (found === undefined) return false
    const ours =
      found.isDirectory() && found.uid === process.getuid?.() && (found.mode & 0o077) === 0
    if (!ours)
      this.#log.error({ directory }, 'is not private to this agent: no failure marks there')
    return ours
  }
}

/** Of a directory that need not exist. */
function isInMemory(directory: string): boolean {
  for (let at = directory; ; at = dirname(at)) {
    try {
      const { type } = statfsSync(at)
      return type === TMPFS || type === RAMFS
    } catch (error) {
      if (!hasCode(error, 'ENOENT') || dirname(at) === at) return false
    }
  }
}

function decode(bytes: Buffer): BootMark {
  try {
    const { reason, createdMs } = JSON.parse(bytes.toString()) as Record<string, unknown>
    if (typeof reason === 'string' && typeof createdMs === 'number') return { reason, createdMs }
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error
  }
  return { reason: 'unknown reason', createdMs: null }
}
