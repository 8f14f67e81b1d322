import { forgetGroupOfDrills } from '#control/resources/drills.ts'
import { deleteGroupRow, readGroup } from '#control/resources/groups.ts'
import { forgetRecovery } from '#control/resources/recovery.ts'
import { addChore } from '#control/resources/surroundings.ts'
import { readOwnership } from '#control/resources/sync.ts'
import type { Transaction } from '#control/store/store.ts'
import type { OwnershipRow } from '#control/store/tables/sites.ts'
import type { OwnershipRecord } from '#wire/site/witness.ts'
import type { StepContext } from '../../operation.ts'

/**
 * The end of a group without pairs: its row goes, and the witness forgets its session, whose record is closed. A site that has not
 * said since that it has the session no more could not be told later what the witness does not know any more: it gets a chore.
 */
export async function forgetGroup(
  tx: Transaction,
  ctx: StepContext<unknown>,
  id: string,
): Promise<void> {
  await forgetSession(tx, ctx, id)
  await forgetGroupOfDrills(tx, id)
  await forgetRecovery(tx, id)
  await deleteGroupRow(tx, id)
}

/** As `forgetGroup`, without the row. Before any chore for disks of the session: a site carries them out in order. */
export async function forgetSession(
  tx: Transaction,
  ctx: StepContext<unknown>,
  id: string,
): Promise<void> {
  const { witness, agents, clock } = ctx.services
  const group = await readGroup(tx, id)
  const row = (await readOwnership(tx, [id])).get(id)
  if (group === undefined || row === undefined) return
  for (const site of [group.source_az, group.target_az]) {
    // A site that was silent while its session was ended may be heard again by now, and still have it.
    const gone = agents.heard(site) && agents.session(id, site) === null
    if (row.epoch === 0 || gone) continue
    const chore = { site, command: 'session.close', request: { record: ended(row) } }
    await addChore(tx, chore, clock.wallMs())
  }
  await witness.forget(tx, id)
}

const ended = ({ session, epoch, writer, replica, mode, preferred }: OwnershipRow) =>
  ({
    session,
    epoch,
    state: 'closed',
    writer,
    replica,
    mode: mode as OwnershipRecord['mode'],
    preferred,
  }) satisfies OwnershipRecord
