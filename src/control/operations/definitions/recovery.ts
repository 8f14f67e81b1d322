import { assert } from '#base/assert.ts'
import { Fault, fault, isFault } from '#base/fault.ts'
import { productionAz, readGroup } from '#control/resources/groups.ts'
import { productionServer } from '#control/resources/instances.ts'
import {
  endRun,
  findPlan,
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
import { refusalCode } from '#control/sites/client.ts'
import { fromJson, toJson } from '#control/store/json.ts'
import type { Queries, Transaction } from '#control/store/store.ts'
import type { RecoveryServerRow } from '#control/store/tables/recovery.ts'
import {
  decideRun,
  EMPTY_PLAN,
  hasEnded,
  hasSettled,
  newRun,
  type Pause,
  plannedOf,
  type PlannedScript,
  type RecoveryPlan,
  type Run,
  type RunEvent,
  type RunState,
  type ServerState,
  turnOf,
  whoseTurn,
} from '#domain/recovery-plan.ts'
import { decideServer } from '#domain/server.ts'
import type { Probe, ProbeAnswer } from '#wire/site/probes.ts'
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
} from '../operation.ts'
import { addEntities } from '../records.ts'
import type { ScriptOutcome } from '../services.ts'
import { switchingInstances } from './instance-identity.ts'
import { storedPlan } from './plan-format.ts'
import { submitStart } from './server-start.ts'

/* The servers of a group come back in the order of its plan (src/domain/recovery-plan.ts has the rules).
 *
 *   group.recover     begin       the run with a row for each server, from the plan as it is now
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
/** Longest wait of one question to an agent. The operation holds a place meanwhile. */
const PROBE_WAIT_MS = 1_000
const PROBE_PAUSE_MS = 250
const PROBE_ANSWER_MS = 5_000

export interface RecoverGroup {
  readonly group: string
  readonly reason: 'failover' | 'reverse' | 'operator'
  /** The group's station when it was asked for: the servers of another one are none of its business. */
  readonly station: string
}

interface RecoverServer {
  readonly run: string
  readonly instance: string
}

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

async function begin(tx: Transaction, ctx: StepContext<RecoverGroup>): Promise<void> {
  const { reason, station } = ctx.input
  const group = await readGroup(tx, ctx.input.group)
  // Deleted meanwhile, with everything that is known of its recoveries.
  if (group === undefined) return
  const now = ctx.services.clock.wallMs()
  const stored = await findPlan(tx, group.id)
  const plan = stored === undefined ? EMPTY_PLAN : storedPlan(stored.plan)
  const stale = group.station !== station
  const instances = stale ? [] : await switchingInstances(tx, group.id)
  const run = newRun(
    plan,
    instances.map(({ id }) => id),
  )
  const row = {
    id: ctx.id,
    group_id: group.id,
    project: group.project,
    site: productionAz(group),
    station,
    reason,
    state: stale ? 'superseded' : run.state,
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
    run.servers.map(({ instance, state }, place) => {
      const found = byId.get(instance)
      assert(found !== undefined, 'a run is of instances of its group')
      return {
        run: ctx.id,
        instance,
        server: productionServer(group, found),
        place,
        state,
        operation: '',
        started_at: null,
        ready_at: null,
        ended_at: null,
        reason_code: null,
        reason: null,
        probes: '[]',
        script_before: null,
        script_after: null,
      }
    }),
  )
  await showRun(tx, ctx.id, run)
}

async function conclude(tx: Transaction, ctx: StepContext<RecoverGroup>): Promise<void> {
  const stored = await readRun(tx, ctx.id)
  if (stored === undefined) return
  await endRun(tx, ctx.id, ctx.services.clock.wallMs())
  await showRun(tx, ctx.id, runOf(stored))
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

// ---------------------------------------------------------------- scripts

function script(name: 'before' | 'after', from: ServerState, to: ServerState): Step<RecoverServer> {
  return step<RecoverServer, ScriptOutcome | null>(name, {
    act: async (ctx) => {
      const stored = await readRun(ctx.services.store.db, ctx.input.run)
      const row = stored?.servers.find(({ instance }) => instance === ctx.input.instance)
      if (stored === undefined || row?.state !== from) return null
      const { scriptBefore, scriptAfter } = plannedOf(planOf(stored), row.instance)
      const planned = name === 'before' ? scriptBefore : scriptAfter
      return planned === null ? null : await runScript(ctx, stored, row, name, planned)
    },
    record: async (tx, ctx, outcome) => {
      const { row } = await mine(tx, ctx)
      if (row?.state !== from) return
      const said = outcome === null ? {} : { [`script_${name}`]: toJson(outcome) }
      if (outcome === null || outcome.ok) return await move(tx, ctx, row, to, said)
      const reason = `The script ${name} its start: ${outcome.reason ?? ''}`
      await giveUp(tx, ctx, row, 'SCRIPT_FAILED', reason, said)
    },
  })
}

async function runScript(
  ctx: StepContext<RecoverServer>,
  { row: run }: StoredRun,
  { server, instance }: RecoveryServerRow,
  phase: 'before' | 'after',
  { script: name, timeoutMs }: PlannedScript,
): Promise<ScriptOutcome> {
  const { scripts } = ctx.services
  if (scripts === undefined) {
    const reason = 'this control plane has no directory of scripts (recoveryScripts)'
    return { ok: false, reason, output: '' }
  }
  return await scripts.run(name, {
    key: `${ctx.id}-${phase}`,
    environment: {
      HOLDFAST_RUN: run.id,
      HOLDFAST_REASON: run.reason,
      HOLDFAST_GROUP: run.group_id,
      HOLDFAST_PROJECT: run.project,
      HOLDFAST_SITE: run.site,
      HOLDFAST_INSTANCE: instance,
      HOLDFAST_SERVER: server,
      HOLDFAST_PHASE: phase,
    },
    timeoutMs,
    signal: ctx.signal,
  })
}

// ---------------------------------------------------------------- probes

type Probed =
  | { readonly ok: true }
  | { readonly ok: false; readonly code: string; readonly reason: string }

/** What a probe saw last. */
export interface SeenProbe {
  readonly ok: boolean
  readonly detail: string
  readonly output: string
  /** From the guest's start until the probe first succeeded, as the site says. */
  readonly since_start_ms: number | null
}

async function askProbes(ctx: StepContext<RecoverServer>): Promise<Probed> {
  const { store, clock } = ctx.services
  const stored = await readRun(store.db, ctx.input.run)
  const row = stored?.servers.find(({ instance }) => instance === ctx.input.instance)
  if (stored === undefined || row?.state !== 'probing') return { ok: true }
  const state = stored.row.state as RunState
  if (hasEnded(state) && state !== 'stopped') {
    return { ok: false, code: 'RECOVERY_ENDED', reason: `The recovery is ${state}.` }
  }
  const { probes } = plannedOf(planOf(stored), row.instance)
  const seen = fromJson<SeenProbe[]>(row.probes)
  for (const [index, { probe, timeoutMs }] of probes.entries()) {
    if (seen[index]?.ok === true) continue
    const answer = await ask(ctx, stored.row.site, row.server, probe)
    seen[index] = answer
    await store.write((tx) => updateRunServer(tx, row, { probes: toJson(seen) }))
    if (answer.ok) continue
    if (clock.wallMs() - (row.started_at ?? 0) < timeoutMs) throw new StepWaits(PROBE_PAUSE_MS)
    const reason = `${probe.kind}: ${answer.detail}, ${timeoutMs / 1_000} s after the start`
    return { ok: false, code: 'PROBE_FAILED', reason }
  }
  return { ok: true }
}

async function ask(
  ctx: StepContext<RecoverServer>,
  site: string,
  server: string,
  probe: Probe,
): Promise<SeenProbe> {
  const { sites } = ctx.services
  try {
    const request = { server, probe, wait_ms: PROBE_WAIT_MS }
    const timeoutMs = PROBE_WAIT_MS + PROBE_ANSWER_MS
    const answer: ProbeAnswer = await sites.command(site, 'server.probe', request, {
      signal: ctx.signal,
      timeoutMs,
    })
    return answer
  } catch (error) {
    ctx.signal.throwIfAborted()
    if (!isFault(error)) throw error
    const detail = refusalCode(error) ?? error.code
    return { ok: false, detail, output: '', since_start_ms: null }
  }
}

// ---------------------------------------------------------------- from outside

/** The run of the group's servers, beside everything else. Runs before it are superseded: they were of an earlier switch. */
export async function submitRecovery(
  tx: Transaction,
  ctx: Pick<StepContext<unknown>, 'wake'>,
  submit: SubmitChild,
  group: { readonly id: string; readonly project: string; readonly station: string },
  reason: RecoverGroup['reason'],
): Promise<string> {
  for (const row of await openRuns(tx, group.id)) {
    await change(tx, ctx, await theRun(tx, row.id), { kind: 'supersede' })
  }
  return await submit(recoverGroup, {
    project: group.project,
    resourceType: RECOVERY_RESOURCE,
    resourceId: `${group.id}.${group.station}`,
    input: { group: group.id, reason, station: group.station },
    entities: { server_group_id: group.id },
    apart: true,
  })
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
