import { sleep } from '#base/clock.ts'
import { Fault } from '#base/fault.ts'
import type { ProbeFinding } from '#wire/reports/drill-report.ts'
import { type Probe, PROBE_MS_MAX } from '#wire/site/probes.ts'
import type { StepContext } from '../operation.ts'

/* Looks at the servers of a drill until every probe has succeeded or the time is over. A few questions at a time, short ones, in turn: a
 * site has other commands to answer, and a server that never comes up keeps nobody from being seen. */

const ASKED_AT_ONCE = 8
/** The agent looks four times a second while it waits. */
const WAIT_MS = 2_000
const ANSWER_MS = 30_000
/** After a site that did not answer. */
const PAUSE_MS = 1_000

export interface ProbeTask {
  readonly server: string
  readonly probe: Probe
}

/** A command in the guest is given the time that it takes; cut off, it would be begun again and again. */
const waitMs = ({ probe }: ProbeTask): number => (probe.kind === 'command' ? PROBE_MS_MAX : WAIT_MS)

/** Findings in the order of `tasks`. Throws only when `signal` fires. */
export async function probeAll(
  ctx: StepContext<unknown>,
  site: string,
  tasks: readonly ProbeTask[],
  times: { readonly requestedAtMs: number; readonly timeoutMs: number },
): Promise<ProbeFinding[]> {
  const { clock } = ctx.services
  const endMs = clock.bootMs() + times.timeoutMs
  const findings = tasks.map(({ probe }): ProbeFinding => nothingYet(probe))
  const open = tasks.map((task, index) => ({ task, index }))
  let done = 0
  const work = async () => {
    for (let one = open.shift(); one !== undefined; one = open.shift()) {
      const leftMs = Math.max(0, Math.floor(endMs - clock.bootMs()))
      const { finding, final } = await ask(ctx, site, one.task, Math.min(waitMs(one.task), leftMs))
      const after_request_ms = finding.ok ? wholeMs(clock.wallMs() - times.requestedAtMs) : null
      findings[one.index] = { ...finding, after_request_ms }
      const over = clock.bootMs() >= endMs
      if (finding.ok || final || over) await ctx.progress((100 * ++done) / tasks.length)
      else open.push(one)
    }
  }
  await Promise.all(Array.from({ length: Math.min(ASKED_AT_ONCE, tasks.length) }, work))
  return findings
}

const nothingYet = (probe: Probe): ProbeFinding => ({
  probe,
  ok: false,
  detail: 'nobody looked',
  since_start_ms: null,
  after_request_ms: null,
})

async function ask(
  { services, signal }: StepContext<unknown>,
  site: string,
  { server, probe }: ProbeTask,
  wait_ms: number,
): Promise<{ readonly finding: ProbeFinding; readonly final: boolean }> {
  try {
    const answer = await services.sites.command(
      site,
      'server.probe',
      { server, probe, wait_ms },
      { signal, timeoutMs: wait_ms + ANSWER_MS },
    )
    const { ok, detail, since_start_ms } = answer
    const since = since_start_ms === null ? null : wholeMs(since_start_ms)
    const finding = { ...nothingYet(probe), ok, detail: wellFormed(detail), since_start_ms: since }
    return { finding, final: NEVER.some((text) => detail.startsWith(text)) }
  } catch (error) {
    signal.throwIfAborted()
    if (!(error instanceof Fault)) throw error
    const finding = { ...nothingYet(probe), detail: wellFormed(error.message) }
    if (error.kind.retry === 'never') return { finding, final: true }
    await sleep(services.clock, PAUSE_MS, signal)
    return { finding, final: false }
  }
}

/** What no waiting changes. */
const NEVER = ['NO_NETWORK_ACCESS', 'the guest has no NIC']

const wellFormed = (text: string): string => text.toWellFormed().slice(0, 500)

/** A wall clock may have been set back meanwhile. */
const wholeMs = (ms: number): number => Math.max(0, Math.round(ms))
