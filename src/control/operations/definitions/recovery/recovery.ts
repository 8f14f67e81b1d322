import { assert } from '#base/assert.ts'
import { Fault, fault } from '#base/fault.ts'
import { productionAz, readGroup } from '#control/resources/groups.ts'
import { productionServer } from '#control/resources/instances.ts'
import {
  endRun,
  findPlan,
  forgetOldRuns,
  insertRun,
  openRuns,
  readRun,
  readRunServer,
  saveRun,
  type StoredRun,
  toRun,
  updateRunServer,
} from '#control/resources/recovery.ts'
import { faultOf, readServer, serverFacts, serverStatus } from '#control/resources/servers.ts'
import { toJson } from '#control/store/json.ts'
import type { Queries, Transaction } from '#control/store/store.ts'
import type { RecoveryServerRow } from '#control/store/tables/recovery.ts'
import type { ProtectionGroupRow } from '#control/store/tables/resources.ts'
import {
  decideRun,
  EMPTY_PLAN,
  hasSettled,
  newRun,
  type Pause,
  type RecoveryPlan,
  type Run,
  type RunEvent,
  type RunState,
  type ServerState,
  turnOf,
  whoseTurn,
} from '#domain/recovery-plan.ts'
import { decideServer } from '#domain/server.ts'
import type { Probe } from '#wire/site/probes.ts'
import {
  childrenStep,
  type Failure,
  type OperationKind,
  operation,
  type Step,
  step,
  type StepContext,
  StepWaits,
  type SubmitChild,
} from '../../operation.ts'
import { addEntities } from '../../records.ts'
import { switchingInstances } from '../instances/instance-identity.ts'
import { storedPlan } from './plan-format.ts'
import { askProbes, type Probed } from './recovery-probes.ts'
import { type KeptOutcome, saidBy, scriptOutcome, type ServerOfRun } from './recovery-scripts.ts'
import { submitStart } from '../servers/server-start.ts'

/* The servers of a group come back in the order of its plan (src/domain/recovery-plan.ts has the rules).
 *
 *   (asked for)                   the run with a row for each server, from the plan as it is then, in the transaction that submits
 *   group.recover     begin       nothing: older releases made the run here
 *                     servers     one operation for each of them
 *                     conclude    fails when a server is not ready: for whoever follows the job. The switch itself ended before
 *
 *   server.recover    turn        waits until the run lets it go, or skips it
 *                     before      the script before its start
 *                     start       server.start
 *                     probe       until all its probes have succeeded, or the time of one is over
 *                     after       the script after it
 *
 * A run is nobody's child: the switch that it follows is over as soon as the disks are switched. What a server's part has come to is in its
 * row of `recovery_servers`, and each step looks there first, so that one whose part is over passes through the rest.
 *
 * Whoever waits holds no place: it is woken by the transaction that makes it its turn, and looks by itself now and then.
 */

export const RECOVERY_INCOMPLETE = fault({
  code: 'RECOVERY_INCOMPLETE',
  retry: 'never',
  text: 'Not every server of the group is ready.',
  hint: 'See `holdfast group recovery` for the reason of each; `holdfast group recover` starts those that are not, in the same order.',
})

/** Recoveries of a group at one site run one after the other, beside the operations on the group itself. */
export const RECOVERY_RESOURCE = 'group-recovery'
const SERVER_RECOVERY_RESOURCE = 'server-recovery'

/** Who waits for its turn is woken, durably; it looks by itself all the same. A pause may last for days, so not often. */
const TURN_MS = 600_000
export interface RecoverGroup {
  readonly group: string
  readonly reason: 'failover' | 'reverse' | 'operator'
  /** The group's station when it was asked for: the servers of another one are none of its business. */
  readonly station: string
}

type RecoverServer = ServerOfRun

type Db = Queries | Transaction

// ---------------------------------------------------------------- of the whole group

export const recoverGroup: OperationKind<RecoverGroup> = operation('group.recover', {
  version: 1,
  steps: [
    step('begin', { record: begin }),
    childrenStep('servers', {
      submit: async (tx, ctx, submit) => {
        const stored = await readRun(tx, ctx.id)
        for (const server of stored?.servers ?? []) {
          if (hasSettled(server.state as ServerState)) continue
          const child = await submit(recoverServer, {
            project: ctx.project,
            resourceType: SERVER_RECOVERY_RESOURCE,
            resourceId: server.server,
            input: { run: ctx.id, instance: server.instance },
            entities: { protected_instance_id: server.instance, server_id: server.server },
          })
          await updateRunServer(tx, server, { operation: child })
        }
      },
      ended: async () => {},
    }),
    step<RecoverGroup, Readonly<Record<string, number>>>('conclude', {
      act: async (ctx) => {
        const stored = await readRun(ctx.services.store.db, ctx.id)
        if (stored === undefined) return {}
        const { row, servers } = stored
        const count = (state: ServerState) => servers.filter((one) => one.state === state).length
        const found = {
          ready: count('ready'),
          not_ready: count('not_ready'),
          skipped: count('skipped'),
        }
        if (found.ready === servers.length) return found
        const { ready, not_ready: not, skipped } = found
        throw new Fault(
          RECOVERY_INCOMPLETE,
          `recovery ${row.state}: ${ready} ready, ${not} not ready, ${skipped} not started`,
        )
      },
      record: (tx, ctx) => conclude(tx, ctx),
    }),
  ],
  failed: (tx, ctx) => conclude(tx, ctx),
})

/** The run was made when it was asked for; only releases before this one left that to the operation. */
async function begin(tx: Transaction, ctx: StepContext<RecoverGroup>): Promise<void> {
  if ((await readRun(tx, ctx.id)) !== undefined) return
  const group = await readGroup(tx, ctx.input.group)
  // Deleted meanwhile, with everything that is known of its recoveries.
  if (group === undefined) return
  await makeRun(tx, ctx, ctx.services.clock.wallMs(), ctx.id, group, ctx.input)
}

/** At most one run of a group is under way: those before it are superseded, they were of an earlier switch. */
async function makeRun(
  tx: Transaction,
  ctx: Pick<StepContext<unknown>, 'wake'>,
  now: number,
  id: string,
  group: ProtectionGroupRow,
  { reason, station }: Pick<RecoverGroup, 'reason' | 'station'>,
): Promise<void> {
  const stale = group.station !== station
  if (!stale) {
    for (const row of await openRuns(tx, group.id)) {
      await change(tx, ctx, await theRun(tx, row.id), { kind: 'supersede' })
    }
  }
  await forgetOldRuns(tx, group.id, now)
  const stored = await findPlan(tx, group.id)
  const plan = stored === undefined ? EMPTY_PLAN : storedPlan(stored.plan)
  const instances = stale ? [] : await switchingInstances(tx, group.id)
  const run = newRun(
    plan,
    instances.map((instance) => instance.id),
  )
  const state: RunState = stale ? 'superseded' : run.state
  const row = {
    id,
    group_id: group.id,
    project: group.project,
    site: productionAz(group),
    station,
    reason,
    state,
    pauses: toJson(run.pauses),
    passed: toJson(run.passed),
    plan: stored?.plan ?? '{}',
    touched_by: null,
    started_at: now,
    ended_at: null,
  }
  const byId = new Map(instances.map((instance) => [instance.id, instance]))
  await insertRun(
    tx,
    row,
    run.servers.map(({ instance, state: of }, place) => {
      const found = byId.get(instance)
      assert(found !== undefined, 'a run is of instances of its group')
      return {
        run: id,
        instance,
        server: productionServer(group, found),
        place,
        state: of,
        operation: '',
        started_at: null,
        ready_at: null,
        ended_at: null,
        reason_code: null,
        reason: null,
        probes: '[]',
        script_before: null,
        script_after: null,
        script_attempt: null,
      }
    }),
  )
  await showRun(tx, id, { ...run, state })
}

async function conclude(tx: Transaction, ctx: StepContext<RecoverGroup>): Promise<void> {
  const stored = await readRun(tx, ctx.id)
  if (stored === undefined) return
  // Of an operation that was given up half way nothing more is going to be started.
  await change(tx, ctx, stored, { kind: 'abort' })
  await endRun(tx, ctx.id, ctx.services.clock.wallMs())
  await showRun(tx, ctx.id, runOf(await theRun(tx, ctx.id)))
}

/** What whoever follows the job sees of the run. */
async function showRun(tx: Transaction, id: string, run: Run): Promise<void> {
  await addEntities(tx, id, { recovery: run.state, waits_for: pauseText(run.pauses) })
}

/** What has to be done before `continue`; null: nothing is waited for. */
export function pauseText(pauses: readonly Pause[]): string | null {
  if (pauses.length === 0) return null
  return pauses
    .map((pause) =>
      pause.kind === 'planned' ? pause.text : `instance ${pause.instance} is not ready`,
    )
    .join('; ')
}

async function theRun(db: Db, id: string): Promise<StoredRun> {
  const stored = await readRun(db, id)
  assert(stored !== undefined, 'a recovery has a run from its first step on')
  return stored
}

const planOf = ({ row }: StoredRun): RecoveryPlan<Probe> => storedPlan(row.plan)
const runOf = (stored: StoredRun): Run => toRun(stored, planOf(stored))

// ---------------------------------------------------------------- of one server

export const recoverServer: OperationKind<RecoverServer> = operation('server.recover', {
  version: 1,
  steps: [
    step('turn', { record: takeTurn }),
    script('before', 'preparing', 'starting'),
    childrenStep('start', {
      submit: async (tx, ctx, submit) => {
        const { row } = await mine(tx, ctx)
        if (row?.state !== 'starting') return
        await updateRunServer(tx, row, { started_at: ctx.services.clock.wallMs() })
        await submitStart(tx, ctx, submit, row.server)
      },
      ended: recordStart,
    }),
    step<RecoverServer, Probed>('probe', {
      act: askProbes,
      record: async (tx, ctx, probed) => {
        const { row } = await mine(tx, ctx)
        if (row?.state !== 'probing') return
        if (probed.ok) await move(tx, ctx, row, 'finishing')
        else await giveUp(tx, ctx, row, probed.code, probed.reason)
      },
    }),
    script('after', 'finishing', 'ready'),
  ],
  failed: async (tx, ctx, failure: Failure) => {
    const { row } = await mine(tx, ctx)
    if (row === undefined || hasSettled(row.state as ServerState)) return
    await giveUp(tx, ctx, row, failure.code, failure.message)
  },
})

/** The server's row; its run may have been forgotten with the group. */
async function mine(
  db: Db,
  ctx: StepContext<RecoverServer>,
): Promise<{ readonly row: RecoveryServerRow | undefined }> {
  return { row: await readRunServer(db, ctx.input.run, ctx.input.instance) }
}

async function takeTurn(tx: Transaction, ctx: StepContext<RecoverServer>): Promise<void> {
  const { run: id, instance } = ctx.input
  const stored = await readRun(tx, id)
  const row = stored?.servers.find((one) => one.instance === instance)
  if (stored === undefined || row?.state !== 'waiting') return
  const group = await readGroup(tx, stored.row.group_id)
  const stale = group?.station !== stored.row.station
  if (stale) await change(tx, ctx, stored, { kind: 'supersede' })
  const turn = stale ? 'skip' : turnOf(runOf(stored), instance)
  if (turn === 'wait') throw new StepWaits(TURN_MS)
  await move(tx, ctx, row, turn === 'skip' ? 'skipped' : 'preparing')
}

/** Ended runs refuse; that is fine. */
async function change(
  tx: Transaction,
  ctx: Pick<StepContext<unknown>, 'wake'>,
  stored: StoredRun,
  event: RunEvent,
): Promise<void> {
  const decision = decideRun(runOf(stored), event)
  if (!decision.ok) return
  await saveRun(tx, stored.row.id, decision.run)
  await showRun(tx, stored.row.id, decision.run)
  await ctx.wake(tx, operationsOf(stored, whoseTurn(decision.run)))
}

const operationsOf = ({ servers }: StoredRun, instances: readonly string[]): string[] => {
  const wanted = new Set(instances)
  return servers.filter((one) => wanted.has(one.instance)).map((one) => one.operation)
}

/** Moves the server, and the run with it, and wakes those whose turn it is then. */
async function move(
  tx: Transaction,
  ctx: StepContext<RecoverServer>,
  row: RecoveryServerRow,
  to: ServerState,
  more: Partial<RecoveryServerRow> = {},
): Promise<void> {
  const stored = await theRun(tx, row.run)
  const now = ctx.services.clock.wallMs()
  await updateRunServer(tx, row, {
    ...more,
    state: to,
    ...(to === 'finishing' ? { ready_at: now } : {}),
    ...(hasSettled(to) ? { ended_at: now } : {}),
  })
  await change(tx, ctx, stored, { kind: 'moved', instance: row.instance, to })
}

const REASON_CHARS_MAX = 500

async function giveUp(
  tx: Transaction,
  ctx: StepContext<RecoverServer>,
  row: RecoveryServerRow,
  code: string,
  reason: string,
  more: Partial<RecoveryServerRow> = {},
): Promise<void> {
  const text = reason.slice(0, REASON_CHARS_MAX)
  await move(tx, ctx, row, 'not_ready', { ...more, reason_code: code, reason: text })
}

async function recordStart(tx: Transaction, ctx: StepContext<RecoverServer>): Promise<void> {
  const { row } = await mine(tx, ctx)
  if (row?.state !== 'starting') return
  const server = await readServer(tx, row.server)
  if (server === undefined) {
    return await giveUp(tx, ctx, row, 'SERVER_GONE', 'The server was deleted.')
  }
  if (serverStatus(server) === 'active') return await move(tx, ctx, row, 'probing')
  const decision = decideServer(await serverFacts(tx, server), { kind: 'start' })
  const refusal = decision.ok ? 'SERVER_NOT_STARTED' : decision.refusal
  const why = faultOf(server)
  await giveUp(
    tx,
    ctx,
    row,
    why?.code ?? refusal,
    why?.message ?? `The server is ${server.status} and was not started (${refusal}).`,
  )
}

function script(
  phase: 'before' | 'after',
  from: ServerState,
  to: ServerState,
): Step<RecoverServer> {
  return step<RecoverServer, KeptOutcome | null>(phase, {
    act: (ctx) => scriptOutcome(ctx, phase, from),
    record: async (tx, ctx, outcome) => {
      const { row } = await mine(tx, ctx)
      if (row?.state !== from) return
      const said = saidBy(phase, outcome)
      if (outcome === null || outcome.ok) return await move(tx, ctx, row, to, said)
      const reason = `The script ${phase} its start: ${outcome.reason ?? ''}`
      await giveUp(tx, ctx, row, 'SCRIPT_FAILED', reason, said)
    },
  })
}

// ---------------------------------------------------------------- from outside

/** The run of the group's servers, beside everything else, and known from now on: whoever asks for another meanwhile is told. */
export async function submitRecovery(
  tx: Transaction,
  ctx: Pick<StepContext<unknown>, 'wake'>,
  submit: SubmitChild,
  group: ProtectionGroupRow,
  reason: RecoverGroup['reason'],
  nowMs: number,
): Promise<string> {
  const { station } = group
  const id = await submit(recoverGroup, {
    project: group.project,
    resourceType: RECOVERY_RESOURCE,
    resourceId: `${group.id}.${station}`,
    input: { group: group.id, reason, station },
    entities: { server_group_id: group.id },
    apart: true,
  })
  await makeRun(tx, ctx, nowMs, id, group, { reason, station })
  return id
}

/** What an operator says to the run that is under way. */
export async function commandRun(
  tx: Transaction,
  operations: Pick<StepContext<unknown>, 'wake'>,
  run: string,
  kind: 'continue' | 'abort',
  by: string,
): Promise<'RUN_ENDED' | 'RUN_NOT_PAUSED' | null> {
  const stored = await theRun(tx, run)
  const decision = decideRun(runOf(stored), { kind })
  if (!decision.ok) return decision.refusal
  await saveRun(tx, run, decision.run, { touched_by: by })
  await showRun(tx, run, decision.run)
  await operations.wake(tx, operationsOf(stored, whoseTurn(decision.run)))
  return null
}
