import { type Clock, sleep } from '#base/clock.ts'
import { isFault } from '#base/fault.ts'
import { type Probe, type ProbeAnswer, PROBE_MS_MAX } from '#wire/site/probes.ts'
import type { Power, ServerDefinition } from '#wire/site/servers.ts'
import type { ComputeDriver } from '../driver.ts'
import { type Look, lookOnce } from './attempt.ts'
import { Watches } from './watches.ts'

/* Probes wait: a guest that is asked too early is asked again until it succeeds or the time is over. What succeeded once stays known with its
 * time for as long as this guest runs, so that whoever asks again after a lost answer hears the same figure. */

/** Between two looks. */
const AGAIN_MS = 250
/** A look that could begin gets at least this long, also when the time is nearly over. */
const LOOK_MS_MIN = 2_000
const LOOK_MS_MAX = 5_000
const OUTPUT_BYTES_MAX = 4 * 1024
/** Successes that are remembered; the oldest go. */
const KNOWN_MAX = 1_000

/** The guest as it is now; read anew before each look. */
export interface Probed {
  readonly definition: ServerDefinition
  readonly power: Power
  /** Wall clock, ms, when `power` became so. */
  readonly sinceMs: number
}

export class Probes {
  readonly #driver: ComputeDriver
  readonly #clock: Clock
  /** Time from the start to the first success, by guest, start and probe. */
  readonly #known = new Map<string, number>()
  readonly #watches: Watches

  constructor(driver: ComputeDriver, clock: Clock) {
    this.#driver = driver
    this.#clock = clock
    this.#watches = new Watches(clock)
  }

  close(): void {
    this.#watches.close()
  }

  /** What is known of it, at once; see watches.ts. `guest` throws when the server is no longer known. */
  watch(guest: () => Probed, probe: Probe): ProbeAnswer {
    const { definition, sinceMs } = guest()
    const long = probe.kind === 'command' ? definition.server : null
    return this.#watches.ask(keyOf(definition.server, sinceMs, probe), long, async () => {
      const now = guest()
      if (now.sinceMs !== sinceMs) throw new Error('the guest was started anew')
      try {
        return await this.#once(now, probe, this.#clock.bootMs() + limitOf(probe))
      } catch (error) {
        if (!isFault(error)) throw error
        return answerOf({ ok: false, detail: error.message, output: '' })
      }
    })
  }

  /** `guest` throws when the server is no longer known. */
  async probe(guest: () => Probed, probe: Probe, waitMs: number): Promise<ProbeAnswer> {
    const endMs = this.#clock.bootMs() + waitMs
    for (;;) {
      const answer = await this.#once(guest(), probe, endMs)
      const leftMs = endMs - this.#clock.bootMs()
      if (answer.ok || leftMs <= 0) return answer
      await sleep(this.#clock, Math.min(AGAIN_MS, leftMs))
    }
  }

  async #once(guest: Probed, probe: Probe, endMs: number): Promise<ProbeAnswer> {
    const { definition, power, sinceMs } = guest
    if (power !== 'running')
      return answerOf({ ok: false, detail: `the guest is ${power}`, output: '' })
    const leftMs = endMs - this.#clock.bootMs()
    // A command takes the time that it takes; the rest is over in a moment or not at all.
    const most = probe.kind === 'command' ? Math.max(leftMs, LOOK_MS_MIN) : LOOK_MS_MAX
    const limitMs = Math.min(Math.max(leftMs, LOOK_MS_MIN), most)
    const { driver, clock } = { driver: this.#driver, clock: this.#clock }
    const look = await lookOnce(probe, { driver, clock, definition, limitMs })
    if (!look.ok) return answerOf(look)
    const key = keyOf(definition.server, sinceMs, probe)
    const known = this.#known.get(key) ?? Math.max(0, clock.wallMs() - sinceMs)
    this.#known.set(key, known)
    const oldest = this.#known.size > KNOWN_MAX ? this.#known.keys().next().value : undefined
    if (oldest !== undefined) this.#known.delete(oldest)
    return answerOf(look, known)
  }
}

const keyOf = (server: string, sinceMs: number, probe: Probe): string =>
  JSON.stringify([server, sinceMs, probe])

const limitOf = ({ kind }: Probe): number => (kind === 'command' ? PROBE_MS_MAX : LOOK_MS_MAX)

const answerOf = (
  { ok, detail, output }: Look,
  sinceStartMs: number | null = null,
): ProbeAnswer => ({
  ok,
  detail,
  since_start_ms: sinceStartMs,
  output: Buffer.from(output).subarray(-OUTPUT_BYTES_MAX).toString(),
})
