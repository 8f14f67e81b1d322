import type { OwnershipRequest } from '#domain/ownership.ts'
import type { AgentCommand } from './commands.ts'
import {
  type Operation,
  type Result,
  RETRY_MS,
  type Step,
  type Steps,
  wireRecord,
} from './operator-steps.ts'
import type { Site } from './site.ts'
import type { World } from './world.ts'

/* The failover of a group that is stopped, as control/operations/definitions/protection/paused-failover.ts has it: no session at any moment. The DR disks,
 * which are as the stop has left them, are served plainly, under a closed record that names their site. Production is told to refuse first; one that is
 * silent serves its own until it is heard, and what it answers until then is given up (decision 0177).
 */

type Told<T> = Generator<Step, T, Result>

/** Changes of the record that somebody else makes meanwhile are followed so often. */
const TRIES_MAX = 8

export function* failOverPaused(world: World, steps: Steps): Operation {
  const production = world.site(steps.record.writer)
  const dr = world.peerOf(production)
  steps.enter('look_at_dr')
  const shown = yield* steps.agent(dr, { kind: 'show' })
  if (shown === null) return 'unreachable'
  dr.failing = false
  if (!shown.status.left || shown.status.failed) return 'DR_DISK_NOT_KEPT'

  steps.enter('fence')
  const fenced = yield* refuses(steps, production)

  steps.enter('switch_record')
  const refusal = yield* handOver(steps, production, dr, fenced)
  if (refusal !== null) {
    if (steps.record.state !== 'closed' && steps.record.writer === production.name) {
      yield* steps.witness({
        kind: 'close',
        epoch: steps.record.epoch,
        attempt: steps.attempt('close-again'),
      })
    }
    if (fenced) yield* serves(steps, production)
    return refusal
  }

  steps.enter('serve_dr')
  // Before it serves under it: a witness that is restored from before this must hear of the switch from the sites.
  yield* ends(steps, dr)
  world.observer.servesPlainly(dr, production, steps.record.epoch)
  yield* serves(steps, dr)

  steps.enter('fence_late')
  while (!(yield* refuses(steps, production))) yield* steps.pause(RETRY_MS)
  yield* ends(steps, production)
  return 'ok'
}

/** Null: the record is closed and names `dr`. Whatever an interrupted try has changed is found changed. */
function* handOver(
  steps: Steps,
  production: Site,
  dr: Site,
  consent: boolean,
): Told<string | null> {
  for (let tries = 0; tries < TRIES_MAX; tries++) {
    const { epoch, state, writer } = steps.record
    if (state === 'closed' && writer === dr.name) return null
    const answer = yield* steps.witness(nextChange())
    if (!answer.ok && answer.refusal !== 'STALE_EPOCH') return answer.refusal

    function nextChange(): OwnershipRequest {
      if (writer === dr.name) return { kind: 'close', epoch, attempt: steps.attempt('close') }
      if (state === 'closed') {
        const sites = { writer, replica: dr.name }
        return { kind: 'open', epoch, attempt: steps.attempt(`open-${tries}`), ...sites }
      }
      return {
        kind: 'failover',
        epoch,
        attempt: steps.attempt(`failover-${tries}`),
        force: true,
        consent,
        get preferredOff() {
          return !production.host.powered
        },
      }
    }
  }
  return 'overtaken'
}

/** True: `site` serves its disks no longer. False: it cannot be told. */
function* refuses(steps: Steps, site: Site): Told<boolean> {
  for (;;) {
    const answer = yield* steps.agent(site, { kind: 'serve', serving: 'standby' })
    if (answer === null) return false
    if (answer.ok) return true
    // It has not heard of the stop.
    if (steps.record.state !== 'closed') return false
    if ((yield* steps.agent(site, closing(steps))) === null) return false
    yield* steps.pause(RETRY_MS)
  }
}

const closing = ({ record, mark }: Steps): AgentCommand => ({
  kind: 'close',
  record: wireRecord(record),
  mark,
})

/** `site` keeps the closed record as the last one of the session. */
function* ends(steps: Steps, site: Site): Told<void> {
  for (;;) {
    const answer = yield* steps.agent(site, closing(steps))
    if (answer !== null && answer.code !== 'NOT_YET') return
    yield* steps.pause(RETRY_MS)
  }
}

/** An operation that was cancelled leaves `site` as it is: what starts the group next opens its disks. */
function* serves(steps: Steps, site: Site): Told<void> {
  for (;;) {
    const answer = yield* steps.agent(site, { kind: 'serve', serving: 'standalone' })
    if (answer !== null) return
    if (steps.givesUp()) return
    yield* steps.pause(RETRY_MS)
  }
}
