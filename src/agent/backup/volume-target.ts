import type { Clock } from '#base/clock.ts'
import { Fault } from '#base/fault.ts'
import { HEADER_BYTES, Io, IO_ERRORS, type IoOwner } from '#agent/nbd/device.ts'
import type { Export, ExportConnection, ExportTable } from '#agent/nbd/exports.ts'
import { SlabPool } from '#agent/nbd/slab.ts'
import { VOLUME_NO_SPACE } from '#agent/volumes/faults.ts'
import { type Volume, ZERO_SYNC_BYTES_MAX } from '#agent/volumes/volume.ts'
import { RESTORE_CUT_OFF } from './faults.ts'

/* What a restore writes to: a volume of its own, or the export of a session, whose writer then replicates it. */

export interface VolumeTarget {
  /** Any length. The bytes may be reused when it settles. */
  write(offset: number, data: Buffer): Promise<void>
  zero(offset: number, length: number): Promise<void>
  /** What was written before is durable (at both sites, for a session in sync) when it settles. */
  flush(): Promise<void>
  close(): void
}

/** One write: as long as the loop may stand still, and as a device takes. */
const PART_BYTES = 512 * 1024
const nextTurn = () => new Promise<void>((resolve) => setImmediate(resolve))

export function plainTarget(volume: Volume): VolumeTarget {
  return {
    async write(offset, data) {
      for (let done = 0; done < data.length; ) {
        const length = Math.min(PART_BYTES, data.length - done)
        const wait = volume.guard(offset + done, length)
        if (wait !== null) {
          await wait
          continue
        }
        volume.writeSync(data, done, length, offset + done)
        done += length
        await nextTurn()
      }
    },
    async zero(offset, length) {
      if (length > 0) await volume.zero(offset, length, true)
    },
    flush: () => volume.flush(),
    close: () => undefined,
  }
}

/** How long a session may take until it serves: after a start of the agent it looks for its peer first. */
const SERVED_MS_MAX = 300_000
/** Requests on their way; the device's own order and limits hold besides. */
const IN_FLIGHT_MAX = 4
const ZERO_PART_BYTES = 64 * ZERO_SYNC_BYTES_MAX

/** Waits until `name` is served. */
export async function sessionTarget(
  exports: ExportTable,
  name: string,
  clock: Clock,
  signal: AbortSignal,
): Promise<VolumeTarget> {
  return new SessionTarget(await whenServed(exports, name, clock, signal))
}

function whenServed(
  exports: ExportTable,
  name: string,
  clock: Clock,
  signal: AbortSignal,
): Promise<Export> {
  const found = exports.find(name)
  if (found !== undefined) return Promise.resolve(found)
  return new Promise((resolve, reject) => {
    const end = () => {
      stopWatching()
      cancel()
      signal.removeEventListener('abort', aborted)
    }
    const aborted = () => {
      end()
      reject(signal.reason as Error)
    }
    const cancel = clock.after(SERVED_MS_MAX, () => {
      end()
      reject(new Fault(RESTORE_CUT_OFF, `waiting for ${name} to be served`))
    })
    const stopWatching = exports.watch((changed) => {
      const now = changed === name ? exports.find(name) : undefined
      if (now === undefined) return
      end()
      resolve(now)
    })
    signal.addEventListener('abort', aborted, { once: true })
  })
}

class SessionTarget implements VolumeTarget, IoOwner, ExportConnection {
  readonly #export: Export
  readonly #slabs = new SlabPool({
    slabBytes: PART_BYTES + HEADER_BYTES,
    idleCountMax: IN_FLIGHT_MAX,
  })
  readonly #pending = new Map<Io, (error: number) => void>()
  #inFlight = 0
  #waiting: (() => void)[] = []
  #dropped: string | undefined

  constructor(target: Export) {
    this.#export = target
    target.connections.add(this)
  }

  drop(reason: string): void {
    this.#dropped = reason
    this.resume()
  }

  resume(): void {
    for (const wake of this.#waiting.splice(0)) wake()
  }

  done(io: Io, error: number): void {
    this.#export.ended()
    this.#inFlight--
    this.resume()
    io.slab?.release()
    const told = this.#pending.get(io)
    this.#pending.delete(io)
    told?.(error)
  }

  async write(offset: number, data: Buffer): Promise<void> {
    const parts: Promise<void>[] = []
    for (let at = 0; at < data.length; at += PART_BYTES) {
      await this.#turn()
      const part = data.subarray(at, Math.min(data.length, at + PART_BYTES))
      const slab = this.#slabs.take()
      part.copy(slab.bytes, HEADER_BYTES)
      const io = new Io(this)
      io.kind = 'write'
      io.offset = offset + at
      io.length = part.length
      io.slab = slab
      io.at = HEADER_BYTES
      parts.push(this.#submit(io))
    }
    await Promise.all(parts)
  }

  async zero(offset: number, length: number): Promise<void> {
    for (let at = 0; at < length; at += ZERO_PART_BYTES) {
      await this.#turn()
      const io = new Io(this)
      io.kind = 'zero'
      io.offset = offset + at
      io.length = Math.min(ZERO_PART_BYTES, length - at)
      io.mayUnmap = true
      await this.#submit(io)
    }
  }

  async flush(): Promise<void> {
    await this.#turn()
    const io = new Io(this)
    io.kind = 'flush'
    await this.#submit(io)
  }

  close(): void {
    this.#export.connections.delete(this)
  }

  /** In the step in which it settles a request may be submitted. */
  async #turn(): Promise<void> {
    while (this.#dropped === undefined && (this.#export.held || this.#inFlight >= IN_FLIGHT_MAX)) {
      await new Promise<void>((resolve) => this.#waiting.push(resolve))
    }
    if (this.#dropped === undefined) return
    throw new Fault(RESTORE_CUT_OFF, `writing ${this.#export.name}: ${this.#dropped}`)
  }

  #submit(io: Io): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#pending.set(io, (error) => {
        if (error === IO_ERRORS.ok) return resolve()
        const kind = error === IO_ERRORS.ENOSPC ? VOLUME_NO_SPACE : RESTORE_CUT_OFF
        reject(new Fault(kind, `writing ${this.#export.name} at ${io.offset}: error ${error}`))
      })
      this.#inFlight++
      io.arm()
      this.#export.began(1)
      this.#export.served.submit([io], 1)
    })
  }
}
