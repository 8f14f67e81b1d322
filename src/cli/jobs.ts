import { systemClock } from '#base/system/clock.ts'
import type { ApiSession } from '#client/api.ts'
import { type SdrsJob, waitForJob } from '#client/sdrs.ts'
import type { Output } from './output.ts'
import { usageError } from './usage.ts'

export interface JobFlags {
  readonly wait: boolean
  readonly timeout: string
}

/** Waits for a job unless told not to, and prints it. Settles with the ended job, undefined when it was not awaited. */
export async function followJob(
  api: ApiSession,
  output: Output,
  job: string,
  flags: JobFlags,
  what: string,
): Promise<SdrsJob | undefined> {
  if (!flags.wait) {
    output.result({ job_id: job }, `${what}: job ${job}`)
    return undefined
  }
  output.say(`${what}: job ${job}, waiting for its end`)
  const ended = await waitForJob(api, job, { clock: systemClock, limitMs: limitOf(flags) })
  output.result(ended, `${what}: done`)
  return ended
}

/** The limit of `--timeout SECONDS`, milliseconds. */
export function limitOf(flags: { readonly timeout: string }): number {
  return positiveInteger('--timeout', flags.timeout, 86_400) * 1000
}

export function positiveInteger(flag: string, text: string, max: number): number {
  const value = Number(text)
  if (!/^[0-9]+$/.test(text) || value < 1 || value > max) {
    throw usageError(`${flag} ${text} is not accepted, accepted: a whole number from 1 to ${max}`)
  }
  return value
}
