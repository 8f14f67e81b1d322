import { sleep } from '#base/clock.ts'
import type { Clock } from '#base/clock.ts'
import { fault, Fault, isFault } from '#base/fault.ts'
import {
  refusalCode,
  SITE_NEVER_SEEN,
  SITE_UNREACHABLE,
  type SiteClient,
} from '#control/sites/client.ts'
import type { Arbitration, Witness } from '#control/sites/witness.ts'
import type { Ownership } from '#domain/ownership.ts'

/* How a group is arbitrated when its sites and the witness lose each other.
 *
 * A closed session is arranged at the witness, and opened that way. An open one is changed by its writer, in sync only: the
 * writer makes the stricter of both modes its own first, so that it never goes on alone under a mode that is not in force any more, and
 * asks the witness. Either way the record tells what is in force.
 */

export const ARBITRATION_NOT_NOW = fault({
  code: 'ARBITRATION_NOT_NOW',
  retry: 'later',
  text: 'The arbitration of a protected group can be changed only while it is in sync.',
  hint: 'Wait until the group is in sync, or stop its protection first.',
})
export const ARBITRATION_PENDING = fault({
  code: 'ARBITRATION_PENDING',
  retry: 'later',
  text: 'The production site was told, but the change is not in force yet.',
  hint: 'Look at the group again; repeating the same request is harmless.',
})

const WAIT_MS = 10_000
const POLL_MS = 100

export interface ArbitrationServices {
  readonly witness: Witness
  readonly commands: SiteClient
  readonly clock: Clock
}

/** Settles with the record under which the arbitration is in force. Repeating it is harmless. */
export async function arrangeArbitration(
  { witness, commands, clock }: ArbitrationServices,
  session: string,
  wanted: Arbitration,
  askedBy: string,
): Promise<Ownership> {
  const before = await witness.record(session)
  const doing = `arranging the arbitration of ${session}`
  if (before === null || before.state === 'closed' || inForce(before, wanted)) {
    return await witness.arrange(session, wanted, askedBy)
  }
  if (before.state !== 'in_sync') throw new Fault(ARBITRATION_NOT_NOW, `${doing}: ${before.state}`)
  try {
    await commands.command(before.writer, 'session.arbitrate', { session, ...wanted })
  } catch (error) {
    const away = isFault(error, SITE_UNREACHABLE) || isFault(error, SITE_NEVER_SEEN)
    const refusal = refusalCode(error)
    const notNow = refusal === 'WRONG_STATE' || refusal === 'NOT_WRITER' || refusal === 'NOT_YET'
    if (away || notNow) throw new Fault(ARBITRATION_NOT_NOW, doing, {}, error)
    throw error
  }
  const endMs = clock.bootMs() + WAIT_MS
  for (;;) {
    const record = await witness.record(session)
    if (record !== null && inForce(record, wanted)) return record
    if (clock.bootMs() > endMs) throw new Fault(ARBITRATION_PENDING, doing)
    await sleep(clock, POLL_MS)
  }
}

const inForce = (record: Ownership, { mode, preferred }: Arbitration): boolean =>
  record.mode === mode && record.preferred === preferred
