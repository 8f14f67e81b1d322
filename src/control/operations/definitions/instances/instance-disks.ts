import { Fault } from '#base/fault.ts'
import { groupStatus, movePair, readPair, updatePair, volumeAt } from '#control/resources/groups.ts'
import { drServer, pairAttachments, productionServer } from '#control/resources/instances.ts'
import { readServer, setDiskState, takeDiskOut } from '#control/resources/servers.ts'
import { toJson } from '#control/store/json.ts'
import type { Queries, Transaction } from '#control/store/store.ts'
import { restingPairStatus } from '#domain/replication-pair.ts'
import type { ServerInfo } from '#wire/site/servers.ts'
import { operation, type Step, step, type StepContext } from '../../operation.ts'
import { defineUntil } from './guest-follows.ts'
import { theInstance } from './instances.ts'
import { DISK_NOT_RELEASED, DISK_NOT_TAKEN, released } from '../servers/server-disks.ts'
import { raiseGeneration } from '../servers/server-definition.ts'
import { unlessSilent } from '../protection/session.ts'

/* Pairs come to protected instances and leave them: both disks, at both servers, under one name.
 *
 * The request has put the rows of both disks into their state and raised both generations. Here the running guest gets the disk, or
 * gives it back, and the server of the DR site is told; a silent site is told by power-sync.ts when it returns.
 *
 * What failed to be attached may be half there. Both disks are on their way out then (`detaching`), and detaching the pair ends it.
 */

export interface PairOfInstance {
  readonly pair: string
}

const TAKE_MS = 20_000
const RELEASE_MS = 60_000

type Role = 'production' | 'dr'
type Db = Queries | Transaction

interface Place {
  readonly server: string
  readonly volume: string
  readonly az: string
}

/** Where one side of the pair is. Null: the server is gone, or the pair. */
async function placeOf(
  db: Db,
  instanceId: string,
  pairId: string,
  role: Role,
): Promise<Place | null> {
  const { instance, group } = await theInstance(db, instanceId)
  const id = role === 'production' ? productionServer(group, instance) : drServer(group, instance)
  const server = await readServer(db, id)
  const pair = await readPair(db, pairId)
  if (server === undefined || pair === undefined) return null
  return { server: id, az: server.az, volume: volumeAt(group, pair, server.az) }
}

const place = (db: Db, ctx: StepContext<PairOfInstance>, role: Role) =>
  placeOf(db, ctx.resourceId, ctx.input.pair, role)

// ---------------------------------------------------------------- attach

export const attachPair = operation<PairOfInstance>('instance.attach', {
  version: 1,
  steps: [
    plug('plug_production', 'production'),
    plug('plug_dr', 'dr'),
    step('settle', { record: (tx, ctx) => rest(tx, ctx) }),
  ],
  failed: async (tx, ctx) => {
    await setBoth(tx, ctx, 'detaching')
    const pair = await readPair(tx, ctx.input.pair)
    if (pair?.status !== 'attaching') return
    await movePair(tx, pair.id, 'error-attaching', ctx.services.clock.wallMs())
  },
})

function plug(name: string, role: Role): Step<PairOfInstance> {
  return step<PairOfInstance, Place | null>(name, {
    act: async (ctx) => {
      const at = await place(ctx.services.store.db, ctx, role)
      if (at === null) return null
      const has = (info: ServerInfo) =>
        info.power !== 'running' || info.disks.some((disk) => disk.volume === at.volume)
      const tell = async () => {
        const info = await defineUntil(ctx, at.server, has, TAKE_MS)
        if (has(info)) return
        const why = info.reason ?? 'no reason was given'
        throw new Fault(DISK_NOT_TAKEN, `attaching ${at.volume} to ${at.server}: ${why}`)
      }
      if (role === 'production') await tell()
      else await unlessSilent(ctx, at.az, tell)
      return at
    },
    record: async (tx, ctx, at) => {
      if (at === null) return
      await setDiskState(tx, at.server, at.volume, 'attached', ctx.services.clock.wallMs())
    },
  })
}

// ---------------------------------------------------------------- detach

export const detachPair = operation<PairOfInstance>('instance.detach', {
  version: 1,
  steps: [
    unplug('unplug_production', 'production'),
    unplug('unplug_dr', 'dr'),
    step('settle', {
      record: async (tx, ctx) => {
        const pair = await readPair(tx, ctx.input.pair)
        if (pair === undefined) return
        const left = pairAttachments(pair).filter((one) => one.instance !== ctx.resourceId)
        const now = ctx.services.clock.wallMs()
        await updatePair(tx, pair.id, { attachments: toJson(left) }, now)
        await rest(tx, ctx)
      },
    }),
  ],
  failed: async (tx, ctx) => {
    await setBoth(tx, ctx, 'attached')
    const pair = await readPair(tx, ctx.input.pair)
    if (pair?.status !== 'detaching') return
    await movePair(tx, pair.id, 'error-detaching', ctx.services.clock.wallMs())
  },
})

function unplug(name: string, role: Role): Step<PairOfInstance> {
  return step<PairOfInstance, Place | null>(name, {
    act: async (ctx) => {
      const at = await place(ctx.services.store.db, ctx, role)
      if (at === null) return null
      const tell = async () => {
        const info = await defineUntil(
          ctx,
          at.server,
          (one) => released(one, at.volume),
          RELEASE_MS,
        )
        if (released(info, at.volume)) return
        throw new Fault(DISK_NOT_RELEASED, `detaching ${at.volume} from ${at.server}`)
      }
      // A production site that is dead has no guest with the disk: what comes back there is defined anew first.
      await unlessSilent(ctx, at.az, tell)
      return at
    },
    record: async (tx, ctx, at) => {
      if (at === null) return
      await takeDiskOut(tx, at.server, at.volume, ctx.services.clock.wallMs())
    },
  })
}

// ---------------------------------------------------------------- common

async function rest(tx: Transaction, ctx: StepContext<PairOfInstance>): Promise<void> {
  const { group } = await theInstance(tx, ctx.resourceId)
  const now = ctx.services.clock.wallMs()
  await movePair(tx, ctx.input.pair, restingPairStatus(groupStatus(group)), now)
}

/** Rows that are gone stay gone. */
async function setBoth(
  tx: Transaction,
  ctx: StepContext<PairOfInstance>,
  state: 'attached' | 'detaching',
): Promise<void> {
  for (const role of ['production', 'dr'] as const) {
    const at = await place(tx, ctx, role)
    if (at === null) continue
    await setDiskState(tx, at.server, at.volume, state, ctx.services.clock.wallMs())
    await raiseGeneration(tx, at.server)
  }
}
