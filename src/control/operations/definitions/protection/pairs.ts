import { Fault } from '#base/fault.ts'
import {
  deleteGroupRow,
  deletePairRow,
  drAz,
  groupForm,
  groupStatus,
  moveGroup,
  movePair,
  pairsOfGroup,
  productionAz,
  readPair,
  updatePair,
  volumeAt,
} from '#control/resources/groups.ts'
import { addChore } from '#control/resources/surroundings.ts'
import {
  deleteVolumeRow,
  moveVolume,
  readVolume,
  updateVolume,
} from '#control/resources/volumes.ts'
import type { Transaction } from '#control/store/store.ts'
import type { ProtectionGroupRow, ReplicationPairRow } from '#control/store/tables/resources.ts'
import type { Ownership } from '#domain/ownership.ts'
import { restingPairStatus } from '#domain/replication-pair.ts'
import { GIB } from '#domain/volume.ts'
import { operation, type Step, step, type StepContext } from '../../operation.ts'
import { forgetSession } from './forget-group.ts'
import {
  changeRecord,
  endSession,
  GROUP_MOVED_ON,
  openAt,
  theGroup,
  theRecord,
  unlessSilent,
  withRecord,
  ownerOf,
} from './session.ts'
import { refusalCode } from '#control/sites/client.ts'
import { tellLimit } from '../volumes/volumes.ts'

/* Operations on replication pairs. They do not wait for operations on their group, because a failover must not queue
 * behind a pair that waits for a dead site. So every step reads the group again, and a creation that finds the group switched gives
 * up: its DR disk is empty, and must never become the source of a copy.
 *
 *   create   DR disk → (group protected) pair joins the session: record, DR side, production
 *   expand   DR disk → production disk → session takes the new size
 *   delete   pair leaves the session → disks become plain ones, or the DR disk goes; the lone group of a pair goes with it
 */

export const PAIR_RESOURCE = 'replication-pair'

export interface PairInput {
  readonly group: string
}

const pairNow = async (ctx: StepContext<PairInput>) => {
  const { db } = ctx.services.store
  const group = await theGroup(db, ctx.input.group)
  const pair = await readPair(db, ctx.resourceId)
  return { group, pair }
}

/** The state of a pair whose own operation ended well. */
async function rest(tx: Transaction, ctx: StepContext<PairInput>): Promise<void> {
  const now = ctx.services.clock.wallMs()
  const group = await theGroup(tx, ctx.input.group)
  await movePair(tx, ctx.resourceId, restingPairStatus(groupStatus(group)), now)
}

// ---------------------------------------------------------------- create

export interface CreatePair extends PairInput {
  /** The DR disk; its row exists since the request was accepted. */
  readonly drVolume: string
  readonly drAz: string
  readonly sizeGb: number
}

/** Whether the pair joins a session, and under which epoch. */
interface Joining {
  readonly joins: boolean
  readonly epoch: number
}

export const createPair = operation<CreatePair>('pair.create', {
  version: 1,
  steps: [
    step('create_dr_volume', {
      act: async (ctx) => {
        await ctx.services.sites.command(
          ctx.input.drAz,
          'volume.create',
          {
            volume: ctx.input.drVolume,
            size_bytes: ctx.input.sizeGb * GIB,
            serving: 'standby',
            owner: ownerOf(ctx),
          },
          { signal: ctx.signal },
        )
        // A read-only disk is so at this site before any switch can bring clients here.
        await tellLimit(ctx, ctx.input.drVolume)
      },
      record: (tx, ctx) =>
        moveVolume(tx, ctx.input.drVolume, 'available', ctx.services.clock.wallMs()),
    }),
    step<CreatePair, Joining>('join_record', {
      act: async (ctx) => {
        const group = await theGroup(ctx.services.store.db, ctx.input.group)
        if (group.status !== 'protected') return { joins: false, epoch: 0 }
        const { epoch } = await openRecord(ctx, group)
        return { joins: true, epoch }
      },
      record: async (tx, ctx, { joins, epoch }) => {
        const group = await theGroup(tx, ctx.input.group)
        const consistent = joins ? group.status === 'protected' : group.status === 'available'
        if (!consistent) throw new Fault(GROUP_MOVED_ON, `adding pair ${ctx.resourceId}`)
        if (!joins) return
        await updatePair(
          tx,
          ctx.resourceId,
          { in_session: 1, added_epoch: epoch, blank_epoch: epoch, never_replicated: 0 },
          ctx.services.clock.wallMs(),
        )
      },
    }),
    join('join_dr', drAz),
    join('join_production', productionAz),
    step('settle', { record: (tx, ctx) => rest(tx, ctx) }),
  ],
  failed: async (tx, ctx, failure) => {
    const now = ctx.services.clock.wallMs()
    const volume = await readVolume(tx, ctx.input.drVolume)
    if (volume?.status === 'creating') await moveVolume(tx, volume.id, 'error', now)
    const pair = await readPair(tx, ctx.resourceId)
    if (pair?.status !== 'creating') return
    await updatePair(tx, pair.id, { in_session: 0, failure_detail: failure.code }, now)
    await movePair(tx, pair.id, 'error', now)
  },
})

/** A protected group may have lost its last pair, and with it its session. */
async function openRecord(
  ctx: StepContext<PairInput>,
  group: ProtectionGroupRow,
): Promise<Ownership> {
  return await changeRecord(
    ctx,
    group.id,
    ({ state }) => state !== 'closed',
    ({ epoch }) => ({
      kind: 'open',
      epoch,
      attempt: ctx.attemptId,
      writer: productionAz(group),
      replica: drAz(group),
    }),
  )
}

function join(name: string, site: (group: ProtectionGroupRow) => string): Step<CreatePair> {
  return step(name, {
    act: async (ctx) => {
      const { joins } = ctx.results['join_record'] as Joining
      if (!joins) return
      const { group, pair } = await pairNow(ctx)
      if (group.status !== 'protected' || pair?.in_session !== 1) {
        throw new Fault(GROUP_MOVED_ON, `adding pair ${ctx.resourceId}`)
      }
      await openAt(ctx, group, site(group))
    },
  })
}

// ---------------------------------------------------------------- expand

export interface ExpandPair extends PairInput {
  readonly newSizeGb: number
}

export const expandPair = operation<ExpandPair>('pair.expand', {
  version: 1,
  steps: [
    // The DR side first: a session whose production disk is larger than its DR disk has writes without a place.
    grow('grow_dr', null),
    grow('grow_production', 'grow_dr'),
    announce('announce_dr', drAz),
    announce('announce_production', productionAz),
    step('settle', { record: (tx, ctx) => rest(tx, ctx) }),
  ],
  failed: async (tx, ctx) => {
    const pair = await readPair(tx, ctx.resourceId)
    if (pair?.status === 'extending') {
      await movePair(tx, pair.id, 'error-extending', ctx.services.clock.wallMs())
    }
  },
})

/** `after`: the step that grew the other disk. Null: this is the first. */
function grow(name: string, after: string | null): Step<ExpandPair> {
  return step<ExpandPair, string>(name, {
    act: async (ctx) => {
      const { group, pair } = await pairNow(ctx)
      if (pair === undefined) throw new Fault(GROUP_MOVED_ON, `expanding pair ${ctx.resourceId}`)
      const grown = after === null ? null : (ctx.results[after] as string)
      const az = siteToGrow(group, pair, grown)
      const volume = volumeAt(group, pair, az)
      await ctx.services.sites.command(
        az,
        'volume.extend',
        { volume, size_bytes: ctx.input.newSizeGb * GIB },
        { signal: ctx.signal },
      )
      return volume
    },
    record: (tx, ctx, volume) =>
      updateVolume(tx, volume, { size_gb: ctx.input.newSizeGb }, ctx.services.clock.wallMs()),
  })
}

/** By the disk that has grown, not by the role that is left: the group may have failed over between the two. */
export function siteToGrow(
  group: Pick<ProtectionGroupRow, 'station' | 'source_az' | 'target_az'>,
  pair: Pick<ReplicationPairRow, 'source_volume'>,
  grown: string | null,
): string {
  if (grown === null) return group.station === 'source' ? group.target_az : group.source_az
  return grown === pair.source_volume ? group.target_az : group.source_az
}

function announce(name: string, site: (group: ProtectionGroupRow) => string): Step<ExpandPair> {
  return step(name, {
    act: async (ctx) => {
      const { group, pair } = await pairNow(ctx)
      if (pair?.in_session !== 1) return
      const record = await theRecord(ctx.services, group.id)
      if (record.state === 'closed') return
      await openAt(ctx, group, site(group))
    },
  })
}

// ---------------------------------------------------------------- delete

export interface DeletePair extends PairInput {
  readonly deleteTargetVolume: boolean
}

export const deletePair = operation<DeletePair>('pair.delete', {
  version: 1,
  steps: [
    step('leave', {
      record: (tx, ctx) =>
        updatePair(tx, ctx.resourceId, { in_session: 0 }, ctx.services.clock.wallMs()),
    }),
    step('leave_session', { act: (ctx) => leaveSession(ctx) }),
    step<DeletePair, readonly boolean[]>('free_disks', {
      act: async (ctx) => {
        const { group, pair } = await pairNow(ctx)
        const told: boolean[] = []
        for (const chore of pair === undefined ? [] : choresOf(ctx, group, pair)) {
          told.push(await unlessSilent(ctx, chore.site, () => carryOut(ctx, chore)))
        }
        return told
      },
      record: async (tx, ctx, told) => {
        const now = ctx.services.clock.wallMs()
        const group = await theGroup(tx, ctx.input.group)
        const pair = await readPair(tx, ctx.resourceId)
        if (pair === undefined) return
        const lone = groupForm(group) === 'lone'
        if (lone) await forgetSession(tx, ctx, group.id)
        for (const [index, chore] of choresOf(ctx, group, pair).entries()) {
          if (told[index] === true) continue
          const { site, command, volume } = chore
          const request = command === 'volume.delete' ? { volume } : PLAIN(volume)
          await addChore(tx, { site, command, request }, now)
        }
        await updateVolume(tx, pair.source_volume, { pair: null }, now)
        if (ctx.input.deleteTargetVolume) await deleteVolumeRow(tx, pair.target_volume)
        else await updateVolume(tx, pair.target_volume, { pair: null }, now)
        await deletePairRow(tx, pair.id)
        if (lone) await deleteGroupRow(tx, group.id)
      },
    }),
  ],
  failed: async (tx, ctx) => {
    const now = ctx.services.clock.wallMs()
    const pair = await readPair(tx, ctx.resourceId)
    if (pair?.status !== 'deleting') return
    await movePair(tx, pair.id, 'error-deleting', now)
    const group = await theGroup(tx, ctx.input.group)
    if (groupForm(group) === 'lone') await moveGroup(tx, group.id, 'error-deleting', now)
  },
})

/** Takes the pair out of the running session, or ends the session with its last pair. */
async function leaveSession(ctx: StepContext<DeletePair>): Promise<void> {
  const { services } = ctx
  const { group } = await pairNow(ctx)
  const others = (await pairsOfGroup(services.store.db, group.id)).filter(
    (pair) => pair.in_session === 1,
  )
  const before = await theRecord(services, group.id)
  if (before.epoch === 0) return
  if (others.length === 0) {
    await changeRecord(
      ctx,
      group.id,
      ({ state }) => state === 'closed',
      ({ epoch }) => ({ kind: 'close', epoch, attempt: ctx.attemptId }),
    )
    for (const site of [productionAz(group), drAz(group)]) {
      await unlessSilent(ctx, site, () => endSession(ctx, group.id, site))
    }
    return
  }
  if (before.state === 'closed') return
  // Production first: once it no longer sends this member's writes, the DR side can let go of the disk.
  for (const site of [productionAz(group), drAz(group)]) {
    await unlessSilent(ctx, site, () => removeAt(ctx, group, site))
  }
}

async function removeAt(
  ctx: StepContext<DeletePair>,
  group: ProtectionGroupRow,
  site: string,
): Promise<void> {
  await withRecord(ctx, group.id, async ({ epoch }) => {
    await ctx.services.sites.command(
      site,
      'session.remove',
      {
        session: group.id,
        epoch,
        pairs: [ctx.resourceId],
        serving: site === productionAz(group) ? 'standalone' : 'standby',
        reason: 'its replication pair was deleted',
      },
      { signal: ctx.signal },
    )
  })
}

interface DiskChore {
  readonly site: string
  readonly command: 'volume.serve' | 'volume.delete'
  readonly volume: string
}

/** What the two sites do with the disks, once no session has them. */
function choresOf(
  ctx: StepContext<DeletePair>,
  group: ProtectionGroupRow,
  pair: ReplicationPairRow,
): readonly DiskChore[] {
  return [
    { site: group.source_az, command: 'volume.serve', volume: pair.source_volume },
    {
      site: group.target_az,
      command: ctx.input.deleteTargetVolume ? 'volume.delete' : 'volume.serve',
      volume: pair.target_volume,
    },
  ]
}

async function carryOut(ctx: StepContext<DeletePair>, chore: DiskChore): Promise<void> {
  const { sites } = ctx.services
  const { volume } = chore
  try {
    if (chore.command === 'volume.delete') {
      await sites.command(chore.site, 'volume.delete', { volume }, { signal: ctx.signal })
    } else {
      await sites.command(chore.site, 'volume.serve', PLAIN(volume), { signal: ctx.signal })
    }
  } catch (error) {
    // The disk of a pair whose creation failed may never have been made.
    if (refusalCode(error) !== 'VOLUME_UNKNOWN') throw error
  }
}

const PLAIN = (volume: string) => ({ volume, serving: 'standalone' as const, reason: '' })
