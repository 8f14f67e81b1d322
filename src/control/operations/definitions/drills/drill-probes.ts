import { Fault, isFault } from '#base/fault.ts'
import { SITE_NEVER_SEEN, SITE_UNREACHABLE } from '#control/sites/client.ts'
import type { Probe } from '#wire/site/probes.ts'
import type { StepContext } from '../../operation.ts'
import type { SeenProbe } from './drill-facts.ts'

/* One question to a site about a server of a drill. */

const ANSWER_MS = 10_000

/** final: no waiting changes it · silent: the site did not answer at all */
export interface Heard extends SeenProbe {
  readonly final: boolean
  readonly silent: boolean
}

/** Throws only when `signal` fires. `last`: the site is to look now, and not to tell what it saw before. */
export async function askProbe(
  { services, signal }: StepContext<unknown>,
  site: string,
  server: string,
  probe: Probe,
  last: boolean,
): Promise<Heard> {
  try {
    const answer = await services.sites.command(
      site,
      'server.probe',
      { server, probe, wait_ms: 0, watch: !last },
      { signal, timeoutMs: ANSWER_MS },
    )
    const { ok, detail, since_start_ms: since } = answer
    return {
      ok,
      detail: wellFormed(detail),
      since_start_ms: since === null ? null : Math.max(0, Math.round(since)),
      final: NEVER.some((text) => detail.startsWith(text)),
      silent: false,
    }
  } catch (error) {
    signal.throwIfAborted()
    if (!(error instanceof Fault)) throw error
    return {
      ok: false,
      detail: wellFormed(error.message),
      since_start_ms: null,
      final: error.kind.retry === 'never',
      silent: isFault(error, SITE_UNREACHABLE) || isFault(error, SITE_NEVER_SEEN),
    }
  }
}

/** What no waiting changes. */
const NEVER = ['NO_NETWORK_ACCESS', 'the guest has no NIC']

const wellFormed = (text: string): string => text.toWellFormed().slice(0, 500)
