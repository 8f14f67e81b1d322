import type { Clock } from '#base/clock.ts'
import type { Log } from '#base/log.ts'
import type { Report } from '#wire/site/witness.ts'
import type { ControlClient } from './control-client.ts'

export interface Reporter {
  stop(): void
  /** The last report was taken. */
  reached(): boolean
  /** Names the history that the control plane acts on, out of its last answer; undefined before the first. */
  history(): string | undefined
}

/** Reports for ever, one at a time. What fails is said once, and again when it works. */
export function startReporter(options: {
  readonly control: ControlClient
  readonly report: () => Report
  readonly clock: Clock
  readonly log: Log
  readonly everyMs: number
}): Reporter {
  const { control, report, clock, log, everyMs } = options
  let stopped = false
  let reached: boolean | undefined
  let mark: string | undefined
  let cancel = () => {}

  async function once(): Promise<void> {
    try {
      const answer = await control.report({ ...report(), ...(mark === undefined ? {} : { mark }) })
      mark = answer.mark
      if (reached !== true) log.info('the control plane takes reports')
      reached = true
    } catch (error) {
      if (reached !== false) log.warn({ err: error }, 'the control plane takes no reports')
      reached = false
    }
  }

  function turn(): void {
    void once().then(() => {
      if (!stopped) cancel = clock.after(everyMs, turn)
    })
  }

  turn()
  return {
    reached: () => reached === true,
    history: () => mark,
    stop() {
      stopped = true
      cancel()
    },
  }
}
