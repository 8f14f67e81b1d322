import { Fault, isFault } from '#base/fault.ts'
import { systemClock } from '#base/system/clock.ts'
import type { ApiSession } from '#client/api.ts'
import { API_REFUSED } from '#client/faults.ts'
import { waitForOperation } from '#client/protection.ts'
import { failOverAnyGroup } from '#client/recovery.ts'
import { type JobFlags, limitOf } from '../jobs.ts'
import type { Output } from '../output.ts'

/* `holdfast group failover`: of a group that the volume API manages, over our own interface, whose operation it follows; and what a refusal says at a shell. */

/** What a paused group's failover does behind the switch, for as long as the old production is silent. */
const BEHIND: ReadonlySet<string> = new Set(['fence_late', 'keep'])
const GOES_ON =
  'the DR site serves the disks by their own ids; the old production is told, and what it wrote since the pause is kept, as soon as its site is heard'

export async function failOverOtherGroup(
  api: ApiSession,
  output: Output,
  group: string,
  flags: JobFlags,
  said: { readonly force: boolean; readonly preferredOff: boolean },
): Promise<void> {
  const operation = await failOverAnyGroup(api, group, said)
  const what = `failover ${group}`
  if (!flags.wait) {
    return output.result({ operation_id: operation }, `${what}: operation ${operation}`)
  }
  output.say(`${what}: operation ${operation}, waiting for the switch`)
  const seen = await waitForOperation(api, operation, {
    clock: systemClock,
    limitMs: limitOf(flags),
    isEnough: ({ step }) => BEHIND.has(step ?? ''),
  })
  output.result(seen, `${what}: done`)
  if (seen.status !== 'succeeded') output.say(GOES_ON)
}

/** What the API tells a program to send, and what one types for it. */
const TYPED = [
  [
    'send {"failover-server-group":{"force":true,"preferred_site_is_off":true}}',
    'repeat the command with --force --preferred-site-is-off',
  ],
  ['send {"failover-server-group":{"force":true}}', 'repeat the command with --force'],
] as const

/** `work`; a refusal that tells what to send tells the flags instead. */
export async function toldInFlags<T>(work: Promise<T>): Promise<T> {
  try {
    return await work
  } catch (error) {
    if (!isFault(error, API_REFUSED)) throw error
    const said = String(error.detail['message'])
    const hint = TYPED.reduce((text, [sent, typed]) => text.replace(sent, typed), said)
    if (hint === said) throw error
    const doing = `failing over (${String(error.detail['status'])} ${String(error.detail['code'])})`
    throw new Fault({ ...API_REFUSED, hint }, doing, error.detail, error)
  }
}
