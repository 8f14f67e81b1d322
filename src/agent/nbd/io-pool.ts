import { Io, type IoOwner } from './device.ts'

/** The request objects of one connection, used again and again so that nothing is allocated per request, and the memory that they refer to. */
export class IoPool {
  readonly #owner: IoOwner
  readonly #free: Io[] = []

  constructor(owner: IoOwner) {
    this.#owner = owner
  }

  take(): Io {
    return this.#free.pop() ?? new Io(this.#owner)
  }

  /** Nobody refers to it any more; its slab has been released. */
  give(io: Io): void {
    io.slab = undefined
    io.extents = undefined
    io.parent = undefined
    io.partsLeft = 0
    io.partsError = 0
    io.fua = false
    io.mayUnmap = false
    io.more = false
    io.single = false
    this.#free.push(io)
  }

  /** A read with its parts, whose data is not needed here any more. */
  giveRead(io: Io): void {
    for (const part of io.parts) {
      releaseSlab(part)
      this.give(part)
    }
    io.parts.length = 0
    releaseSlab(io)
    this.give(io)
  }
}

export function releaseSlab(io: Io): void {
  const { slab } = io
  io.slab = undefined
  slab?.release()
}

/** The parts of a large read, or the request itself. */
export function forEachPart(io: Io, visit: (part: Io) => void): void {
  if (io.parts.length === 0) visit(io)
  else for (const part of io.parts) visit(part)
}
