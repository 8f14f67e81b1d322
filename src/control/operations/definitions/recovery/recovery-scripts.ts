import { assert } from '#base/assert.ts'
import { rounds } from '#base/rounds.ts'
import {
  readRun,
  readRunServer,
  type StoredRun,
  updateRunServer,
} from '#control/resources/recovery.ts'
import { fromJson, toJson } from '#control/store/json.ts'
import type { RecoveryServerRow } from '#control/store/tables/recovery.ts'
import { plannedOf, type RunState, type ServerState } from '#domain/recovery-plan.ts'
import { BEAT_MS, decideScript, GIVE_UP_MS, type ScriptAttempt } from '#domain/recovery-script.ts'
import { type StepContext, StepWaits } from '../../operation.ts'
import type { RecoveryScripts, ScriptCall, ScriptOutcome } from '../../services.ts'
import { storedPlan } from './plan-format.ts'

/* The scripts before and after the start of a server, beside the operation that waits for them: it holds no place while they run.
 *
 *   look ─► an outcome is kept ─► it is the result of the step
 *     ├───► somebody is at it ──► wait
 *     └───► nobody is ──────────► keep the attempt, begin, wait;  when it has ended: keep the outcome and wake, in one transaction
 *
 * Killed between the attempt and the outcome, the next look begins the next attempt (src/domain/recovery-script.ts).
 */

/** Whoever waits is woken; a process that began after the other one died looks by itself. */
const LOOK_MS = 2_000

/** What became of a script, and at which attempt it was. */
export type KeptOutcome = ScriptOutcome & {
  /** Left out by releases that did not count. */
  readonly attempts?: number
}

type Phase = ScriptAttempt['phase']

/** Names of its columns. */
const COLUMN = { before: 'script_before', after: 'script_after' } as const

export interface ServerOfRun {
  readonly run: string
  readonly instance: string
}

/** What became of the script; null: the plan has none, or its turn is over. Throws StepWaits as long as that is not known. */
export async function scriptOutcome(
  ctx: StepContext<ServerOfRun>,
  phase: Phase,
  during: ServerState,
): Promise<KeptOutcome | null> {
  const { store } = ctx.services
  const stored = await readRun(store.db, ctx.input.run)
  const row = stored?.servers.find(({ instance }) => instance === ctx.input.instance)
  if (stored === undefined || row?.state !== during) return null
  const kept = row[COLUMN[phase]]
  if (kept !== null) return fromJson<KeptOutcome>(kept)
  const planned = plannedOf(storedPlan(stored.row.plan), row.instance)
  const script = phase === 'before' ? planned.scriptBefore : planned.scriptAfter
  if (script === null) return null
  const { scripts } = ctx.services
  const key = `${ctx.id}-${phase}`
  const last = row.script_attempt === null ? null : fromJson<ScriptAttempt>(row.script_attempt)
  const state = stored.row.state as RunState
  const turn = decideScript(last, {
    phase,
    unwanted: state === 'aborted' || state === 'superseded',
    owner: scripts.owner,
    runsHere: scripts.runs(key),
    alone: !store.shared,
    quietMs: last === null ? 0 : scripts.quietMs(key, `${last.owner} ${last.attempt} ${last.beat}`),
  })
  const attempts = last?.attempt ?? 0
  if (turn.kind === 'exhausted') {
    const reason = `it was begun ${attempts} times, and each time nobody knows how it ended`
    return { ok: false, reason, output: '', attempts }
  }
  if (turn.kind === 'unwanted') {
    return { ok: false, reason: `the recovery is ${state}`, output: '', attempts }
  }
  if (turn.kind === 'begin' && scripts.reserve(key)) {
    await begin(ctx, scripts, turn.attempt, stored, row, {
      project: stored.row.project,
      name: script.script,
      key,
      timeoutMs: script.timeoutMs,
    })
  }
  throw new StepWaits(LOOK_MS)
}

async function begin(
  ctx: StepContext<ServerOfRun>,
  scripts: RecoveryScripts,
  attempt: ScriptAttempt,
  { row: run }: StoredRun,
  seen: RecoveryServerRow,
  call: Omit<ScriptCall, 'environment'>,
): Promise<void> {
  const { store, log } = ctx.services
  const { phase } = attempt
  let begun = false
  try {
    begun = await store.write(async (tx) => {
      const row = await readRunServer(tx, seen.run, seen.instance)
      // Somebody else was faster; what he began is looked at next time.
      if (row === undefined || row.script_attempt !== seen.script_attempt) return false
      await updateRunServer(tx, row, { script_attempt: toJson(attempt) })
      return true
    })
  } finally {
    if (!begun) scripts.release(call.key)
  }
  if (!begun) return
  if (attempt.attempt > 1) log.warn({ script: call.name, attempt }, 'a script is run once more')
  const environment = {
    HOLDFAST_RUN: run.id,
    HOLDFAST_REASON: run.reason,
    HOLDFAST_GROUP: run.group_id,
    HOLDFAST_PROJECT: run.project,
    HOLDFAST_SITE: run.site,
    HOLDFAST_INSTANCE: seen.instance,
    HOLDFAST_SERVER: seen.server,
    HOLDFAST_PHASE: phase,
    HOLDFAST_CALL: call.key,
    HOLDFAST_ATTEMPT: String(attempt.attempt),
  }
  /** Changes the row as long as the attempt is the one that is kept there. */
  const whileOurs = async (
    change: (beat: number) => Partial<RecoveryServerRow>,
    wake: boolean,
  ): Promise<boolean> =>
    await store.write(async (tx) => {
      const row = await readRunServer(tx, seen.run, seen.instance)
      const now = row?.script_attempt
      if (row === undefined || now === null || now === undefined) return false
      const { owner, attempt: number, beat } = fromJson<ScriptAttempt>(now)
      if (owner !== attempt.owner || number !== attempt.attempt) return false
      await updateRunServer(tx, row, change(beat))
      if (wake) await ctx.wake(tx, [ctx.id])
      return true
    })
  const stopBeating = store.shared
    ? keepBeating(
        ctx,
        () => scripts.end(call.key),
        async () =>
          whileOurs((beat) => ({ script_attempt: toJson({ ...attempt, beat: beat + 1 }) }), false),
      )
    : async () => {}
  const work = scripts.begin({ ...call, environment }, async (outcome) => {
    const kept: KeptOutcome = { ...outcome, attempts: attempt.attempt }
    await whileOurs(() => ({ [COLUMN[phase]]: toJson(kept), script_attempt: null }), true)
  })
  // Never rejects.
  void work.then(stopBeating)
}

/** Says again and again that this process is alive; gives up when it cannot, or when the attempt is another's by now. */
function keepBeating(
  { services: { clock, log } }: StepContext<unknown>,
  giveUp: () => void,
  beat: () => Promise<boolean>,
): () => Promise<void> {
  let cancel = clock.after(GIVE_UP_MS, giveUp)
  const round = async () => {
    if (!(await beat())) return giveUp()
    cancel()
    cancel = clock.after(GIVE_UP_MS, giveUp)
  }
  const failed = (error: unknown) => log.warn({ err: error }, 'a running script has no beat')
  const beats = rounds(clock, BEAT_MS, round, failed)
  beats.start()
  return async () => {
    await beats.stop()
    cancel()
  }
}

/** The columns of a server whose script has come to its end. */
export function saidBy(phase: Phase, outcome: KeptOutcome | null): Partial<RecoveryServerRow> {
  if (outcome === null) return {}
  assert(outcome.ok === (outcome.reason === null), 'a script that failed has a reason')
  return { [COLUMN[phase]]: toJson(outcome), script_attempt: null }
}
