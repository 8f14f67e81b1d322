import { CMD, CMD_FLAG, ERROR } from '#wire/nbd/constants.ts'
import type { Request } from '#wire/nbd/transmission.ts'
import { type Agreement, REQUEST_BYTES_MAX } from './negotiation.ts'

/* Which requests are refused. No length from the wire is used before it was checked here. */

const KNOWN_FLAGS = CMD_FLAG.FUA | CMD_FLAG.NO_HOLE | CMD_FLAG.REQ_ONE

/** The error number for a request that cannot be carried out, or 0. */
export function problemOf(
  { type, flags, length, offset }: Request,
  { allocation, export: target }: Agreement,
): number {
  if ((flags & ~KNOWN_FLAGS) !== 0) return ERROR.EINVAL
  if (type === CMD.FLUSH) return 0
  const known =
    type === CMD.READ || type === CMD.WRITE || type === CMD.TRIM || type === CMD.WRITE_ZEROES
  if (!known && !(type === CMD.BLOCK_STATUS && allocation)) return ERROR.EINVAL
  if (length === 0) return ERROR.EINVAL
  const payload = type === CMD.READ || type === CMD.WRITE
  if (payload && length > REQUEST_BYTES_MAX) return ERROR.EINVAL
  // Written so that NaN, an offset beyond 2^53, is out of range.
  if (!(offset + length <= target.device.sizeBytes)) {
    return type === CMD.WRITE || type === CMD.WRITE_ZEROES ? ERROR.ENOSPC : ERROR.EINVAL
  }
  return 0
}
