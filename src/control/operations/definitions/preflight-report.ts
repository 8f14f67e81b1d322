import { drAz, productionAz } from '#control/resources/groups.ts'
import { drServer, productionServer } from '#control/resources/instances.ts'
import { portsOf } from '#control/resources/networks.ts'
import { findPlan } from '#control/resources/recovery.ts'
import { disksOf } from '#control/resources/servers.ts'
import type { ProtectionGroupRow } from '#control/store/tables/resources.ts'
import { PROBE_TIMEOUT_MS } from '#domain/drill.ts'
import { describeGivenUp } from '#domain/failover.ts'
import { findFlavor } from '#domain/flavor.ts'
import type { Forecast, GroupAction } from '#domain/forecast.ts'
import {
  GROUP_TRANSITIONS,
  type GroupCommand,
  type GroupRefusal,
  otherStation,
} from '#domain/protection-group.ts'
import { plannedOf } from '#domain/recovery-plan.ts'
import type { RecoveryScripts } from '../services.ts'
import { type CreateDrillRefusal, DrillRefused, planDrill } from './drill-decision.ts'
import { DRILL_WORDS } from './drill-words.ts'
import { forecastOf } from './forecast.ts'
import { readServers } from './instance-facts.ts'
import { storedPlan } from './plan-format.ts'
import {
  type Preflight,
  type PreflightRefusal,
  type PreflightServices,
  preflight,
} from './preflight.ts'
import { groupFacts } from './sync-views.ts'

/* All that can be said about an action on a group before it is asked for: what stands against it and what to do about that, what it may cost,
 * how long it takes, and what happens step by step. Like preflight.ts it asks no agent and changes nothing. */

/** A typed fact with a sentence about it, and what to do. */
export interface Finding {
  readonly code: string
  readonly message: string
  readonly action: string
}

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
  const { store, agents } = services
  const command = commandOf(group, action, statements)
  const judged = await preflight(services, group, command)
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
  const time = await store.read((db) => forecastOf(db, services, group, meant, statements.force))
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

type Code = GroupRefusal | PreflightRefusal | CreateDrillRefusal | 'GROUP_BUSY'

function refusalOf(
  action: GroupAction,
  status: string,
  command: GroupCommand,
  found: Preflight,
): Code | null {
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
): Promise<Code | null> {
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

// ---------------------------------------------------------------- words

const finding = (code: Code): Finding => ({ code, ...WORDS[code] })

/** Shared with the short form of the answer. */
export const refusalMessage = (code: Code): string => WORDS[code].message

const WORDS: Readonly<Record<Code, Omit<Finding, 'code'>>> = {
  GROUP_STATE: {
    message: 'The state of the group does not allow it.',
    action: 'Show the group; wait for a running job, or repeat the action that failed.',
  },
  GROUP_BUSY: {
    message: 'An operation on the group is under way.',
    action: 'Wait for its end; `holdfast group show` says what it is.',
  },
  GROUP_WITHOUT_PAIRS: {
    message: 'The group has no replication pair with two usable disks.',
    action: 'Create a pair, or protect a server.',
  },
  GROUP_BUSY_PAIRS: {
    message: 'A replication pair of the group is being changed.',
    action: 'Wait for the end of its job.',
  },
  GROUP_BUSY_INSTANCES: {
    message: 'A protected instance of the group is being changed.',
    action: 'Wait for the end of its job.',
  },
  GROUP_BROKEN_INSTANCES: {
    message: 'A server of a protected instance is gone.',
    action: 'Delete the protected instance that is shown as invalid.',
  },
  GROUP_PRODUCTION_RUNS: {
    message: 'A protected server at the production site runs.',
    action: 'Shut the production servers down first.',
  },
  GROUP_DR_RUNS: {
    message: 'A protected server at the DR site runs.',
    action: 'Shut the servers of the DR site down first.',
  },
  GROUP_HAS_INSTANCES: {
    message: 'The group has protected instances.',
    action: 'Delete them first.',
  },
  GROUP_HAS_DRILLS: { message: 'The group has drills.', action: 'Delete them first.' },
  GROUP_HAS_PAIRS: { message: 'The group has replication pairs.', action: 'Delete them first.' },
  GROUP_STATION: {
    message: 'That site is production already.',
    action: 'Nothing is to be done.',
  },
  GROUP_COPYING: {
    message: 'The DR side does not hold everything yet.',
    action: 'Wait for the copy; a failover may give up the rest with force.',
  },
  GROUP_LINK_DOWN: {
    message: 'The replication link is down while production works.',
    action: 'Repair the link. A failover now would end production that works.',
  },
  GROUP_PRODUCTION_SILENT: {
    message: 'Nothing is heard from the production site.',
    action: 'Fail over, or bring the production site back.',
  },
  GROUP_PREFERRED_MAY_RUN: {
    message:
      'The preferred site of this static-priority group, of which nothing is heard, may be writing alone.',
    action: 'Make sure that it is off, then state that: force and preferred_off.',
  },
  DR_SITE_SILENT: {
    message: 'Nothing is heard from the DR site.',
    action: 'Start its agent, or find out why the control plane does not hear it.',
  },
  DR_COPY_FAILED: {
    message: 'The disk of the DR side has failed.',
    action: 'Replace it and rebuild the pair from production.',
  },
  DR_SIDE_EMPTY: {
    message: 'No disk of the group was ever copied to the DR side in full.',
    action: 'Bring the production site back: there is nothing to fail over to.',
  },
  DR_SIDE_NOT_IN_SYNC: {
    message: 'Some disks of the group were never copied to the DR side in full.',
    action: 'Wait for their first copy, or leave them behind with force.',
  },
  RECORD_IN_DOUBT: {
    message: 'The witness grants nothing for the group until its record is settled.',
    action: 'Wait until both sites have reported, or `holdfast group vouch` for one that is off.',
  },
  ...DRILL_WORDS,
}

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

const STARTS: ReadonlySet<GroupAction> = new Set(['failover', 'reverse', 'drill'])

/** Whether the servers will come up at the site that is to run them: memory, disks, networks, scripts. */
async function serverFindings(
  { store, agents, scripts }: ReportServices,
  group: ProtectionGroupRow,
  action: GroupAction,
): Promise<Finding[]> {
  if (!STARTS.has(action)) return []
  const site = drAz(group)
  const { instances, servers, disks, ports, plan, paired } = await store.read(async (db) => {
    const rows = await db
      .selectFrom('protected_instances')
      .selectAll()
      .where('group_id', '=', group.id)
      .execute()
    const production = rows.map((instance) => productionServer(group, instance))
    const pairs = await db
      .selectFrom('replication_pairs')
      .select(['source_volume', 'target_volume'])
      .where('group_id', '=', group.id)
      .execute()
    return {
      instances: rows,
      servers: await readServers(db, [...production, ...rows.map((one) => drServer(group, one))]),
      disks: await disksOf(db, production),
      ports: await portsOf(db, production),
      plan: await findPlan(db, group.id),
      paired: new Set(pairs.flatMap((pair) => [pair.source_volume, pair.target_volume])),
    }
  })
  if (instances.length === 0) return []
  const findings: Finding[] = []
  const compute = agents.at(site)?.report.compute
  const starts = group.start_servers === 1 || action === 'drill'
  if (!starts) {
    findings.push({
      code: 'SERVERS_NOT_STARTED',
      message: `The ${instances.length} servers of the group stay off: it does not start them.`,
      action: 'Start them when the job has ended, or `holdfast group recover`.',
    })
  }
  if (compute === undefined || compute.driver === 'none') {
    findings.push({
      code: 'NO_COMPUTE',
      message: `Site ${site} runs no servers: its agent has no compute driver.`,
      action: 'Set computeDriver of the agent, or start the servers elsewhere.',
    })
  } else {
    const standing = instances.map((one) => servers.get(drServer(group, one)))
    const off = standing.filter((one) => one !== undefined && one.power !== 'running')
    const needed = off.reduce((sum, one) => sum + (findFlavor(one?.flavor ?? '')?.memoryMb ?? 0), 0)
    const free = compute.memory_mb - compute.memory_used_mb
    if (needed > free) {
      findings.push({
        code: 'MEMORY_SHORT',
        message: `The servers need ${needed} MiB of memory at ${site}, and ${free} MiB are free.`,
        action:
          'Stop other servers there, raise guestMemoryMb of the agent, or put the important ones first in the recovery plan.',
      })
    }
  }
  for (const { id, name, source_server, target_server } of instances) {
    const production = group.station === 'source' ? source_server : target_server
    const alone = (disks.get(production) ?? []).filter(({ volume }) => !paired.has(volume))
    if (alone.length > 0) {
      findings.push({
        code: 'DISK_NOT_REPLICATED',
        message: `Disk ${alone.map(({ device }) => device).join(', ')} of ${name} is not replicated: the server at ${site} is without it.`,
        action: `Create a pair for it and attach it to instance ${id}, or do without.`,
      })
    }
    if ((ports.get(production) ?? []).length === 0) {
      findings.push({
        code: 'NO_NETWORK',
        message: `${name} has no network interface.`,
        action: `Add one to instance ${id} if it is to be reached.`,
      })
    }
  }
  if (plan !== undefined && starts) {
    findings.push(...(await planFindings(group.project, storedPlan(plan.plan), scripts)))
  }
  return findings
}

async function planFindings(
  project: string,
  plan: ReturnType<typeof storedPlan>,
  scripts: RecoveryScripts | undefined,
): Promise<Finding[]> {
  const findings: Finding[] = []
  const names = new Set(
    Object.keys(plan.instances).flatMap((instance) => {
      const { scriptBefore, scriptAfter } = plannedOf(plan, instance)
      return [scriptBefore?.script ?? [], scriptAfter?.script ?? []].flat()
    }),
  )
  for (const name of names) {
    const unfit =
      scripts === undefined
        ? 'this control plane has no directory of scripts'
        : await scripts.unfit(project, name)
    if (unfit === null) continue
    findings.push({
      code: 'SCRIPT_UNFIT',
      message: `The recovery plan runs script ${name}, which cannot be run: ${unfit}.`,
      action:
        'Put it into the directory of the project in that of recovery scripts of the control plane (recoveryScripts).',
    })
  }
  const pauses = plan.waves.filter(({ pause }) => pause !== null).length
  if (pauses > 0) {
    findings.push({
      code: 'PLAN_PAUSES',
      message: `The recovery plan waits for an operator ${pauses === 1 ? 'once' : `${pauses} times`}.`,
      action: 'Have somebody ready for `holdfast group continue`.',
    })
  }
  return findings
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
  // A kept copy is older than what the DR side has applied since.
  const counted = production !== undefined && dr !== undefined && drCopy !== 'kept'
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

const COPY_WORDS: Readonly<Record<Preflight['copy'], string>> = {
  none: 'What changed since both sites were equal is copied.',
  delta: 'Only what changed since both sites were equal is copied.',
  first: 'The disks are copied for the first time, but for their holes.',
  full: 'Every block is compared, and copied where it differs.',
  unknown: 'How much is copied is known when both sites have met.',
}
