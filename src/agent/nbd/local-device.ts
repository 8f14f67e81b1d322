import { unreachable } from '#base/assert.ts'
import { isFault } from '#base/fault.ts'
import { VOLUME_CLOSED, VOLUME_NO_SPACE } from '#agent/volumes/faults.ts'
import { type Volume, ZERO_SYNC_BYTES_MAX } from '#agent/volumes/volume.ts'
import { type Device, type Io, IO_ERRORS, type IoError } from './device.ts'

/** Most extents told in one reply; clients ask again for the rest. 8 bytes each on the wire. */
const EXTENTS_COUNT_MAX = 4096

/** A device that is one volume of this site, without replication. */
export function localDevice(volume: Volume): Device {
  return {
    get sizeBytes() {
      return volume.sizeBytes
    },
    submit(batch, count) {
      for (let i = 0; i < count; i++) start(volume, batch[i] as Io)
    },
  }
}

function start(volume: Volume, io: Io): void {
  switch (io.kind) {
    case 'read':
      return read(volume, io)
    case 'write':
      return write(volume, io)
    case 'zero':
      return zero(volume, io)
    case 'flush':
      return finishAfter(volume.flush(), io)
    case 'extents':
      return finishAfter(
        volume.extents(io.offset, io.length, EXTENTS_COUNT_MAX).then((extents) => {
          io.extents = extents
        }),
        io,
      )
    default:
      return unreachable(io.kind)
  }
}

/** A snapshot may have to preserve what is about to be changed; one may have been taken while it did, so `again` asks again. */
function whenGuarded(
  wait: Promise<void>,
  volume: Volume,
  io: Io,
  again: (volume: Volume, io: Io) => void,
): void {
  wait.then(
    () => again(volume, io),
    (error: unknown) => io.complete(ioError(error)),
  )
}

function write(volume: Volume, io: Io): void {
  const wait = volume.guard(io.offset, io.length)
  if (wait !== null) return whenGuarded(wait, volume, io, write)
  try {
    if (io.slab !== undefined) volume.writeSync(io.slab.bytes, io.at, io.length, io.offset)
  } catch (error) {
    return io.complete(ioError(error))
  }
  if (io.fua) finishAfter(volume.flush(), io)
  else io.complete(0)
}

function read(volume: Volume, io: Io): void {
  if (io.slab === undefined) return io.complete(0)
  const { bytes } = io.slab
  try {
    if (volume.readCached(bytes, io.at, io.length, io.offset)) return io.complete(0)
  } catch (error) {
    return io.complete(ioError(error))
  }
  volume.readThen(bytes, io.at, io.length, io.offset, (error) =>
    io.complete(error === null ? 0 : ioError(error)),
  )
}

function zero(volume: Volume, io: Io): void {
  if (io.length > ZERO_SYNC_BYTES_MAX) {
    const done = volume.zero(io.offset, io.length, io.mayUnmap)
    return finishAfter(io.fua ? done.then(() => volume.flush()) : done, io)
  }
  const wait = volume.guard(io.offset, io.length)
  if (wait !== null) return whenGuarded(wait, volume, io, zero)
  try {
    volume.zeroSync(io.offset, io.length, io.mayUnmap)
  } catch (error) {
    return io.complete(ioError(error))
  }
  if (io.fua) finishAfter(volume.flush(), io)
  else io.complete(0)
}

function finishAfter(work: Promise<unknown>, io: Io): void {
  work.then(
    () => io.complete(0),
    (error: unknown) => io.complete(ioError(error)),
  )
}

/** What a client is told about a failed request. */
export function ioError(error: unknown): IoError {
  if (isFault(error, VOLUME_NO_SPACE)) return IO_ERRORS.ENOSPC
  if (isFault(error, VOLUME_CLOSED)) return IO_ERRORS.ESHUTDOWN
  if (isFault(error)) return IO_ERRORS.EIO
  // Anything else is a broken belief about our own code and must not be hidden behind a polite number.
  throw error
}
