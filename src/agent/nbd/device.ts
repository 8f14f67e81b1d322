import { assert } from '#base/assert.ts'
import type { Extent } from '#agent/volumes/volume.ts'
import type { Slab } from './slab.ts'

/* What stands behind an export.
 *
 *     socket ── connection ──[ Io, Io, Io ]──► Device.submit          once per event-loop turn
 *                    ▲                             │
 *                    └────── io.complete(0) ◄──────┘                  at once or later, in any order
 *
 * The NBD connection knows nothing of replication and the device knows nothing of sockets. Two devices exist: the local
 * one (`local-device.ts`) and the one of a replication session. Both get every complete request of a turn in arrival order.
 *
 * Rules of the contract
 *  1. The batch array belongs to the connection and is reused as soon as `submit` returns; the Io objects stay valid
 *     until `complete` is called on each, exactly once. After that the object is somebody else's request: do not touch it.
 *  2. `submit` and `complete` never throw for reasons of the outside world. An I/O failure is an error number. `complete` never
 *     calls `submit` before it returns.
 *  3. The payload of a write lies at `slab.bytes[at, at + length)`, with HEADER_BYTES of free room directly before it:
 *     the place where the 28-byte NBD header would be, which has the size of the link's frame header. Writes that
 *     follow each other in a batch usually lie back to back in one slab, so a whole run can be sent with one socket write
 *     after its headers have been filled in. `runEnd` finds such runs.
 *  4. The connection holds a reference on the slab until `complete`. A device that needs the bytes for longer (a link that
 *     has not sent them, a log) calls `slab.retain()` before it completes and `slab.release()` when done.
 *  5. Two requests in flight that overlap have no defined order for the client, but the two sites must still agree:
 *     a replicating device applies overlapping requests in submission order on both sides.
 *  6. A request whose client has gone is carried out all the same; only the reply is dropped.
 */

/** Free bytes before each write payload: an NBD request header, and a link frame header, take 28 bytes. */
export const HEADER_BYTES = 28

/** A write larger than this reaches the device in parts (`more`), so that a link frame is never larger and one big
 *  write cannot stand in the way of small ones for long. */
export const WRITE_PART_BYTES_MAX = 1024 * 1024

/**
 * read     fill slab.bytes[at, at + length) from offset
 * write    payload as in rule 3
 * zero     make [offset, offset + length) read as zeroes; up to 4 GiB - 1. With `mayUnmap` holes are allowed (NBD TRIM and
 *          WRITE_ZEROES without NO_HOLE), without it the space must stay allocated. TRIM always zeroes: both sites must
 *          read the same afterwards.
 * flush    everything completed before it on any connection of the export is durable when it completes
 * extents  set `extents` to the data and holes of [offset, offset + length), from offset on, at least one; the reply may
 *          cover less than asked for but never more
 */
export type IoKind = 'read' | 'write' | 'zero' | 'flush' | 'extents'

/** Error numbers of the NBD protocol that a device may answer with; 0 is success. */
export const IO_ERRORS = { ok: 0, EPERM: 1, EIO: 5, ENOSPC: 28, ESHUTDOWN: 108 } as const
export type IoError = (typeof IO_ERRORS)[keyof typeof IO_ERRORS]

/** Gets each Io back when the device is done with it. */
export interface IoOwner {
  done(io: Io, error: IoError): void
}

/** One request, pooled by its owner: plain fields of one shape, no allocation in the hot path. Offsets and lengths are
 *  checked against the device's size before submission and are bytes without any alignment. */
export class Io {
  readonly owner: IoOwner
  kind: IoKind = 'flush'
  offset = 0
  length = 0
  /** The data must be durable (on both sites) before completion. Only with write and zero. */
  fua = false
  mayUnmap = false
  /** This part of a large write is followed by another one, which is in the same batch directly behind it. Each part is
   *  completed on its own; `fua` stands on every part. */
  more = false
  slab: Slab | undefined = undefined
  at = 0
  extents: readonly Extent[] | undefined = undefined
  /** For the device: sequence number, or whatever it needs to find its own state. Zero on submission. */
  seq = 0
  /** For the owner: the client's cookie, as two numbers because it is 64 opaque bits. */
  cookieHigh = 0
  cookieLow = 0
  /** For the owner: only the first extent is asked for. */
  single = false
  /** For the owner: the parts of a large read, and the request that a part belongs to. */
  readonly parts: Io[] = []
  parent: Io | undefined = undefined
  partsLeft = 0
  partsError: IoError = 0
  #submitted = false

  constructor(owner: IoOwner) {
    this.owner = owner
  }

  /** Called by the owner right before `submit`. */
  arm(): void {
    assert(!this.#submitted, 'a request is submitted once')
    this.#submitted = true
    this.seq = 0
    this.extents = undefined
  }

  /** The device is done: 0 or an error number. Exactly once per submission. */
  complete(error: IoError): void {
    assert(this.#submitted, 'a request is completed once, and only after submission')
    this.#submitted = false
    this.owner.done(this, error)
  }
}

export interface Device {
  /** May grow while connections are open; they see the new size when they reconnect. */
  readonly sizeBytes: number
  /** Clients are told that it cannot be written. Whoever tries all the same gets EPERM from the device. */
  readonly readOnly?: boolean
  /** Takes `batch[0 .. count)` in order. Never throws; see the rules above. */
  submit(batch: readonly Io[], count: number): void
}

/**
 * The end (exclusive index) of the run of writes that begins at `batch[start]`: writes whose headers and payloads lie
 * back to back in one slab, so that `slab.bytes[batch[start].at - HEADER_BYTES, last.at + last.length)` can be sent
 * as it is once the headers are filled in.
 */
export function runEnd(batch: readonly Io[], start: number, count: number): number {
  let last = batch[start] as Io
  let end = start + 1
  while (end < count) {
    const next = batch[end] as Io
    if (next.kind !== 'write' || next.slab !== last.slab) break
    if (next.at - HEADER_BYTES !== last.at + last.length) break
    last = next
    end++
  }
  return end
}
