import { isFault } from '#base/fault.ts'
import { readRun, updateRunServer } from '#control/resources/recovery.ts'
import { refusalCode } from '#control/sites/client.ts'
import { fromJson, toJson } from '#control/store/json.ts'
import { hasEnded, plannedOf, type RunState } from '#domain/recovery-plan.ts'
import type { Probe, ProbeAnswer } from '#wire/site/probes.ts'
import { type StepContext, StepWaits } from '../../operation.ts'
import { storedPlan } from './plan-format.ts'
import type { ServerOfRun } from './recovery-scripts.ts'

/* Whether a server that was started by a recovery is ready. The site looks by itself, for as long as it is asked, and says at once what it has
 * seen: a command in a guest may take 20 s, and as many of those as there are places for operations would stop all others. Between two
 * questions the operation gives its place back; what each probe saw last is in the server's row. */

const PROBE_PAUSE_MS = 500
const ANSWER_MS = 10_000

export type Probed =
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

/** One question of each probe that has not succeeded, in order. Throws StepWaits as long as there is time for another. */
export async function askProbes(ctx: StepContext<ServerOfRun>): Promise<Probed> {
  const { store, clock } = ctx.services
  const stored = await readRun(store.db, ctx.input.run)
  const row = stored?.servers.find(({ instance }) => instance === ctx.input.instance)
  if (stored === undefined || row?.state !== 'probing') return { ok: true }
  const state = stored.row.state as RunState
  if (hasEnded(state) && state !== 'stopped') {
    return { ok: false, code: 'RECOVERY_ENDED', reason: `The recovery is ${state}.` }
  }
  const { probes } = plannedOf(storedPlan(stored.row.plan), row.instance)
  const seen = fromJson<SeenProbe[]>(row.probes)
  for (const [index, { probe, timeoutMs }] of probes.entries()) {
    if (seen[index]?.ok === true) continue
    const leftMs = timeoutMs - (clock.wallMs() - (row.started_at ?? 0))
    // At least one look of its own, also by a process that comes late.
    const last = leftMs <= 0
    const answer = await ask(ctx, stored.row.site, row.server, probe, last)
    if (toJson(answer) !== toJson(seen[index] ?? null)) {
      seen[index] = answer
      await store.write((tx) => updateRunServer(tx, row, { probes: toJson(seen) }))
    }
    if (answer.ok) continue
    if (!last) throw new StepWaits(PROBE_PAUSE_MS)
    const reason = `${probe.kind}: ${answer.detail}, ${timeoutMs / 1_000} s after the start`
    return { ok: false, code: 'PROBE_FAILED', reason }
  }
  return { ok: true }
}

/** `last`: the site is to look now, and not to tell what it saw before. */
async function ask(
  ctx: StepContext<ServerOfRun>,
  site: string,
  server: string,
  probe: Probe,
  last: boolean,
): Promise<SeenProbe> {
  const { sites } = ctx.services
  try {
    const request = { server, probe, wait_ms: 0, watch: !last }
    const answer: ProbeAnswer = await sites.command(site, 'server.probe', request, {
      signal: ctx.signal,
      timeoutMs: ANSWER_MS,
    })
    return answer
  } catch (error) {
    ctx.signal.throwIfAborted()
    if (!isFault(error)) throw error
    const detail = refusalCode(error) ?? error.code
    return { ok: false, detail, output: '', since_start_ms: null }
  }
}
