import { drAz, productionAz } from '#control/resources/groups.ts'
import type { ProtectionGroupRow } from '#control/store/tables/resources.ts'
import { PROBE_TIMEOUT_MS } from '#domain/drill.ts'
import { describeGivenUp } from '#domain/failover.ts'
import type { Forecast, GroupAction } from '#domain/forecast.ts'
import {
  GROUP_TRANSITIONS,
  type GroupCommand,
  type GroupRefusal,
  otherStation,
} from '#domain/protection-group.ts'
import type { RecoveryScripts } from '../../services.ts'
import { DrillRefused, planDrill } from '../drills/drill-decision.ts'
import { forecastOf } from './forecast.ts'
import { type Preflight, type PreflightServices, preflight, preflightPaused } from './preflight.ts'
import { isPaused } from '../protection/paused-failover-requests.ts'
import { serverFindings } from './preflight-servers.ts'
import { type Finding, finding, type PreflightCode } from './preflight-words.ts'
import { groupFacts } from '../protection/sync-views.ts'

/* All that can be said about an action on a group before it is asked for: what stands against it and what to do about that, what it may cost,
 * how long it takes, and what happens step by step. Like preflight.ts it asks no agent and changes nothing. */

export interface Loss {
  /** At least so many; null: not known. */
  readonly bytes: number | null
  readonly writes: number | null
  /** For how long the DR side has been behind, ms; 0: it is not; null: not known. */
  readonly ms: number | null
  readonly text: string
}

export interface PreflightReport {
  readonly found: Preflight
  /** Each of them refuses the action. */
  readonly blockers: readonly Finding[]
  /** The action would be carried out, and these are worth knowing before. */
  readonly warnings: readonly Finding[]
  /** Null: the action gives up nothing by its nature. */
  readonly loss: Loss | null
  readonly time: Forecast
  readonly steps: readonly string[]
}

export interface ReportServices extends PreflightServices {
  readonly scripts?: RecoveryScripts | undefined
}

export interface Statements {
  readonly force: boolean
  readonly preferredOff: boolean
  /** VPC for the servers of a drill; null or left out: one is made. */
  readonly drillVpc?: string | null
}

export async function preflightReport(
  services: ReportServices,
  group: ProtectionGroupRow,
  action: GroupAction,
  statements: Statements,
): Promise<PreflightReport> {
  const { store, agents, witness } = services
  const command = commandOf(group, action, statements)
  const paused =
    action === 'failover' && (await store.read((db) => isPaused(db, group)))
      ? await preflightPaused(services, group, statements)
      : null
  const judged = paused ?? (await preflight(services, group, command))
  const found: Preflight =
    action === 'drill'
      ? { ...judged, refusal: null, needs: [], givenUp: null, freezes: false }
      : judged
  const { facts } = await store.read((db) => groupFacts(db, services, group))
  const running = await store.read((db) =>
    db
      .selectFrom('operations')
      .select('id')
      .where('resource_id', '=', group.id)
      .where('resource_type', '=', 'protection-group')
      .where('status', 'in', ['pending', 'running'])
      .execute(),
  )
  const blockers: Finding[] = []
  const refusal =
    action === 'drill'
      ? await drillRefusal(services, group, statements.drillVpc ?? null)
      : refusalOf(action, facts.status, command, found)
  if (refusal !== null) blockers.push(finding(refusal))
  if (action === 'delete') {
    // Everything that is left in it, not only the first.
    const left: GroupRefusal[] = []
    if (facts.instances > 0) left.push('GROUP_HAS_INSTANCES')
    if (facts.drills > 0) left.push('GROUP_HAS_DRILLS')
    if (facts.pairs > 0) left.push('GROUP_HAS_PAIRS')
    for (const code of left) if (code !== refusal) blockers.push(finding(code))
  }
  const [production, dr] = [productionAz(group), drAz(group)]
  const needs = SITES_NEEDED[action]
  if (needs.production && !agents.heard(production)) {
    addOnce(blockers, siteSilent('PRODUCTION_SITE_SILENT', production))
  }
  if (needs.dr && !agents.heard(dr) && action !== 'drill')
    addOnce(blockers, siteSilent('DR_SITE_SILENT', dr))
  // A drill goes by the states of the group alone.
  if (
    running.length > 0 &&
    action !== 'drill' &&
    !blockers.some(({ code }) => code === 'GROUP_STATE')
  ) {
    blockers.push(finding('GROUP_BUSY'))
  }
  const servers = await serverFindings(services, group, action)
  const reprotects: readonly string[] = GROUP_TRANSITIONS.reprotect.from
  // As in the published interface, a start of a group that has failed over is its reprotection.
  const meant = action === 'start' && reprotects.includes(facts.status) ? 'reprotect' : action
  const record = await witness.record(group.id)
  const time = await store.read((db) =>
    forecastOf(db, services, group, record, meant, statements.force),
  )
  return {
    found,
    blockers,
    warnings: [...(action === 'drill' ? [] : warningsOf(found)), ...servers],
    loss: lossOf(services, group, action, found),
    time,
    steps: stepsOf(group, meant, found, agents.heard(production), facts.instances > 0),
  }
}

/** Which sites have to answer for the action to get anywhere. */
const SITES_NEEDED: Readonly<Record<GroupAction, { production: boolean; dr: boolean }>> = {
  start: { production: true, dr: true },
  reprotect: { production: true, dr: true },
  reverse: { production: true, dr: true },
  failover: { production: false, dr: true },
  drill: { production: false, dr: true },
  stop: { production: false, dr: false },
  delete: { production: false, dr: false },
}

function commandOf(
  group: ProtectionGroupRow,
  action: GroupAction,
  { force, preferredOff }: Statements,
): Exclude<GroupCommand, { readonly kind: 'rename' }> {
  switch (action) {
    case 'failover':
      return { kind: 'failover', force, preferredOff }
    // What a failover would find is what a drill shows.
    case 'drill':
      return { kind: 'failover', force: false }
    case 'reverse':
      return { kind: 'reverse', to: otherStation(group.station === 'source' ? 'source' : 'target') }
    case 'start':
    case 'reprotect':
      return { kind: 'start' }
    case 'stop':
      return { kind: 'stop' }
    case 'delete':
      return { kind: 'delete' }
  }
}

function refusalOf(
  action: GroupAction,
  status: string,
  command: GroupCommand,
  found: Preflight,
): PreflightCode | null {
  // `start` stands for both in the published interface; a reprotection is asked for by its name here.
  const from: readonly string[] = GROUP_TRANSITIONS.reprotect.from
  if (action === 'reprotect' && !from.includes(status)) return 'GROUP_STATE'
  return command.kind === 'rename' ? null : found.refusal
}

/** The very decision that the request goes by. */
async function drillRefusal(
  services: ReportServices,
  group: ProtectionGroupRow,
  vpc: string | null,
): Promise<PreflightCode | null> {
  const options = { probes: {}, timeoutMs: PROBE_TIMEOUT_MS }
  try {
    const wanted = { project: group.project, group: group.id, vpc, options }
    await services.store.read((db) => planDrill(db, services, wanted))
    return null
  } catch (error) {
    if (error instanceof DrillRefused) return error.refusal
    throw error
  }
}

function addOnce(list: Finding[], one: Finding): void {
  if (!list.some(({ code }) => code === one.code)) list.push(one)
}

const siteSilent = (code: string, site: string): Finding => ({
  code,
  message: `Nothing is heard from site ${site}.`,
  action: `Start the agent of ${site}, or find out why the control plane does not hear it.`,
})

// ---------------------------------------------------------------- warnings

function warningsOf(found: Preflight): Finding[] {
  const warnings: Finding[] = []
  if (found.leavesBehind.length > 0) {
    warnings.push({
      code: 'PAIRS_LEFT_BEHIND',
      message: `Pairs that were never copied in full stay behind: ${found.leavesBehind.join(', ')}.`,
      action: 'Wait for their first copy if production still answers.',
    })
  }
  if (found.copy === 'full') {
    warnings.push({
      code: 'FULL_COPY',
      message:
        'The two sites have no common history: every block is compared, and copied where different.',
      action: 'Plan for the load on the link, or limit the rate of the copy.',
    })
  }
  if (found.drCopy === 'kept') {
    warnings.push({
      code: 'KEPT_COPY',
      message: 'The DR side is in a resync and goes back to the copy that it kept when that began.',
      action: 'Wait for the end of the resync if production still answers.',
    })
  }
  return warnings
}

// ---------------------------------------------------------------- loss, steps

function lossOf(
  { agents, clock }: ReportServices,
  group: ProtectionGroupRow,
  action: GroupAction,
  { givenUp, drCopy }: Preflight,
): Loss | null {
  if (action === 'reverse') {
    const text = 'Nothing: both sites hold the same before roles change.'
    return { bytes: 0, writes: 0, ms: 0, text }
  }
  if (action !== 'failover' || givenUp === null) return null
  const text = describeGivenUp(givenUp)
  if (givenUp.kind === 'nothing') return { bytes: 0, writes: 0, ms: 0, text }
  const ms = givenUp.since === null ? null : Math.max(0, Math.round(clock.wallMs() - givenUp.since))
  const production = agents.session(group.id, productionAz(group))?.status
  const dr = agents.session(group.id, drAz(group))?.status
  // A kept copy is older than what the DR side has applied since, and one that lost its power lacks some of what it has counted.
  const there = dr !== undefined && drCopy !== 'kept' && dr.torn !== true
  const counted = production !== undefined && there
  const writes = counted ? Math.max(0, production.sequence - dr.sequence) : null
  return { bytes: givenUp.bytes, writes, ms, text }
}

function stepsOf(
  group: ProtectionGroupRow,
  action: GroupAction,
  found: Preflight,
  productionHeard: boolean,
  servers: boolean,
): string[] {
  const [production, dr] = [productionAz(group), drAz(group)]
  const started =
    group.start_servers === 1
      ? `The servers at ${dr} are started; with a recovery plan in its order, after the job.`
      : `The servers at ${dr} may be started.`
  switch (action) {
    case 'failover':
      if (found.paused) return pausedSteps(production, dr, productionHeard)
      return [
        ...(found.leavesBehind.length > 0
          ? ['Pairs that were never copied in full leave the group.']
          : []),
        ...(found.freezes || productionHeard
          ? [`The witness freezes the record: ${production} gets no lease any more.`]
          : []),
        productionHeard
          ? `${production} is told, drops its clients and says that it has given up.`
          : `${production} is silent: what it may still answer is waited out.`,
        `The witness gives the right to write to ${dr}.`,
        found.drCopy === 'kept'
          ? `${dr} goes back to the copy that it kept, and serves the volumes.`
          : `${dr} serves the volumes; replication stops.`,
        ...(servers
          ? [
              productionHeard
                ? `The servers at ${production} are powered off.`
                : `The servers at ${production} are powered off as soon as the site is heard.`,
              started,
            ]
          : []),
      ]
    case 'reverse':
      return [
        ...(servers ? [`The sites are asked whether the servers at ${production} are off.`] : []),
        `I/O at ${production} is held until both sites hold the same, durably.`,
        `The witness swaps the roles: ${dr} writes, ${production} is the replica.`,
        `${production} becomes the replica, ${dr} serves the volumes; replication goes on.`,
        ...(servers ? [started] : []),
      ]
    case 'start':
    case 'reprotect':
      return [
        action === 'start'
          ? `The witness opens the record: ${production} writes.`
          : `The witness lets ${production} replicate to ${dr} again.`,
        `${dr} becomes the replica, ${production} the writer, and they find each other.`,
        COPY_WORDS[found.copy],
        'When both sites hold the same, the group is in sync.',
      ]
    case 'stop':
      return [
        'The witness closes the record.',
        `${production} goes on alone, unreplicated; ${dr} refuses to open the volumes.`,
        'Starting again later compares every block.',
      ]
    case 'delete':
      return ['The witness closes and forgets the record.', 'The group is removed; volumes stay.']
    case 'drill':
      return [
        `The disks at ${dr} are cloned at one moment; replication goes on.`,
        'Servers are made from the clones in a network of their own, started and probed.',
        'A signed report says what was found. Deleting the drill removes all of it.',
      ]
  }
}

const pausedSteps = (production: string, dr: string, heard: boolean): string[] => [
  heard
    ? `${production} is told to serve the disks no longer.`
    : `${production} is silent: it is told as soon as it is heard.`,
  `The witness gives the right to write to ${dr}; there is no replication, as before.`,
  `${dr} serves its disks, by their own ids, as they were when the group was paused.`,
  `A snapshot keeps what the disks at ${production} hold, as soon as that site is heard; reprotecting waits for it.`,
]

const COPY_WORDS: Readonly<Record<Preflight['copy'], string>> = {
  none: 'What changed since both sites were equal is copied.',
  delta: 'Only what changed since both sites were equal is copied.',
  first: 'The disks are copied for the first time, but for their holes.',
  full: 'Every block is compared, and copied where it differs.',
  unknown: 'How much is copied is known when both sites have met.',
}
