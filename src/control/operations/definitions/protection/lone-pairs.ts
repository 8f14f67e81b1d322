import { assert } from '#base/assert.ts'
import { Fault } from '#base/fault.ts'
import { newId } from '#base/ids.ts'
import {
  GROUP_RESOURCE,
  drAz,
  insertGroup,
  moveGroup,
  movePair,
  pairsOfGroup,
  productionAz,
  readPair,
  updateGroup,
  updatePair,
  volumeAt,
} from '#control/resources/groups.ts'
import { readVolume } from '#control/resources/volumes.ts'
import type { Arbitration } from '#control/sites/witness.ts'
import type { Transaction } from '#control/store/store.ts'
import type { ProtectionGroupRow } from '#control/store/tables/resources.ts'
import {
  childrenStep,
  operation,
  step,
  type StepContext,
  type SubmitChild,
} from '../../operation.ts'
import { startGroup } from './groups.ts'
import { demandDisk, DR_DISK_IN_USE, isUsed } from './pair-disks.ts'
import type { PairInput } from './pairs.ts'
import { theGroup } from './session.ts'
import { tellLimit } from '../volumes/volumes.ts'

/* Pairs that work alone. Each has a group of its own, of the form `lone`: with it comes everything that groups have (session, record,
 * arbitration, failover, verification), and nothing has to know that some pairs are in no group that anybody made.
 *
 *   connect   register → look at both disks → start, as any group
 */

export interface NewLoneGroup {
  readonly project: string
  readonly name: string
  readonly production: string
  readonly dr: string
  readonly domain: string
}

/** The row of a lone group, in creation. Whoever inserts it registers its session before anything else happens to it. */
export async function insertLoneGroup(
  tx: Transaction,
  wanted: NewLoneGroup,
  nowMs: number,
): Promise<ProtectionGroupRow> {
  const group: ProtectionGroupRow = {
    id: newId(),
    project: wanted.project,
    form: 'lone',
    name: wanted.name,
    description: null,
    status: 'creating',
    station: 'source',
    reversing_to: null,
    source_az: wanted.production,
    target_az: wanted.dr,
    domain: wanted.domain,
    vpc: '',
    start_servers: 0,
    next_member: 1,
    failure_detail: null,
    created_at: nowMs,
    updated_at: nowMs,
  }
  await insertGroup(tx, group)
  return group
}

/** Sets a paused group going: it and its pairs are `available`. The caller does not wait for it. */
export async function startApart(
  tx: Transaction,
  ctx: Pick<StepContext<unknown>, 'services'>,
  submit: SubmitChild,
  id: string,
): Promise<void> {
  const now = ctx.services.clock.wallMs()
  const group = await theGroup(tx, id)
  const pairs = await pairsOfGroup(tx, id)
  await moveGroup(tx, id, 'starting', now)
  for (const pair of pairs) await movePair(tx, pair.id, 'starting', now)
  await submit(startGroup, {
    apart: true,
    project: group.project,
    resourceType: GROUP_RESOURCE,
    resourceId: id,
    input: {},
    entities: {
      server_group_id: id,
      name: group.name,
      pairs: pairs.map((pair) => ({ id: pair.id, member: pair.member })),
    },
  })
}

// ---------------------------------------------------------------- connect

export interface ConnectPair extends PairInput {
  /** Default: by the witness. */
  readonly arbitration?: Arbitration
}

export const connectPair = operation<ConnectPair>('pair.connect', {
  version: 1,
  steps: [
    step('register', {
      record: async (tx, ctx) => {
        const group = await theGroup(tx, ctx.input.group)
        const { witness } = ctx.services
        await witness.register(
          tx,
          group.id,
          productionAz(group),
          drAz(group),
          ctx.input.arbitration,
        )
      },
    }),
    step('look_at_disks', { retry: { attemptsMax: 5 }, act: lookAtDisks }),
    childrenStep('start', {
      submit: async (tx, ctx, submit) => {
        const now = ctx.services.clock.wallMs()
        await moveGroup(tx, ctx.input.group, 'available', now)
        await movePair(tx, ctx.resourceId, 'available', now)
        await startApart(tx, ctx, submit, ctx.input.group)
      },
    }),
  ],
  failed: async (tx, ctx, failure) => {
    const now = ctx.services.clock.wallMs()
    const pair = await readPair(tx, ctx.resourceId)
    if (pair?.status !== 'creating') return
    await updatePair(tx, pair.id, { failure_detail: failure.code }, now)
    await movePair(tx, pair.id, 'error', now)
    await updateGroup(tx, ctx.input.group, { failure_detail: failure.code }, now)
    await moveGroup(tx, ctx.input.group, 'error', now)
  },
})

async function lookAtDisks(ctx: StepContext<ConnectPair>): Promise<void> {
  const { store } = ctx.services
  const group = await theGroup(store.db, ctx.input.group)
  const pair = await readPair(store.db, ctx.resourceId)
  assert(pair !== undefined, 'a pair in creation exists')
  const production = await readVolume(store.db, volumeAt(group, pair, productionAz(group)))
  const dr = await readVolume(store.db, volumeAt(group, pair, drAz(group)))
  assert(production !== undefined && dr !== undefined, 'disks of a pair are not deleted')
  await demandDisk(ctx, 'production', production)
  await demandDisk(ctx, 'dr', dr)
  // Before any switch can bring clients to it.
  await tellLimit(ctx, dr.id)
  // Its server may have been started since the request was judged.
  if (await isUsed(store.db, ctx.services, dr)) {
    throw new Fault(DR_DISK_IN_USE, `pairing disk ${dr.id}`)
  }
}
