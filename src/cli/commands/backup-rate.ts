import { usageError } from '../usage.ts'

const MIB = 1024 * 1024
/** MiB per second; also the bound of the server. */
const RATE_MIB_MAX = 1024 * 1024

/** Bytes per second of a flag in MiB per second; 0 is no limit. undefined: not given. */
export function rateOf(text: string | undefined, flag = '--rate'): number | undefined {
  if (text === undefined) return undefined
  const value = Number(text)
  if (!/^[0-9]+$/.test(text) || value > RATE_MIB_MAX) {
    throw usageError(
      `${flag} ${text} is not accepted, accepted: whole MiB per second, 0 for no limit`,
    )
  }
  return value * MIB
}

export const shownRate = (bytes: number): string =>
  bytes === 0 ? 'as fast as it goes' : `${(bytes / MIB).toFixed(bytes % MIB === 0 ? 0 : 2)} MiB/s`
