import { drAz } from '#control/resources/groups.ts'
import { drServer, productionServer } from '#control/resources/instances.ts'
import { portsOf } from '#control/resources/networks.ts'
import { findPlan } from '#control/resources/recovery.ts'
import { disksOf } from '#control/resources/servers.ts'
import type { ProtectionGroupRow } from '#control/store/tables/resources.ts'
import { findFlavor } from '#domain/flavor.ts'
import type { GroupAction } from '#domain/forecast.ts'
import { plannedOf } from '#domain/recovery-plan.ts'
import type { RecoveryScripts } from '../../services.ts'
import { readServers } from '../instances/instance-facts.ts'
import { storedPlan } from './plan-format.ts'
import type { PreflightServices } from './preflight.ts'
import type { Finding } from './preflight-words.ts'

/* Whether the servers of a group would come up at the site that is to run them. */

const STARTS: ReadonlySet<GroupAction> = new Set(['failover', 'reverse', 'drill'])

/** Whether the servers will come up at the site that is to run them: memory, disks, networks, scripts. */
export async function serverFindings(
  {
    store,
    agents,
    scripts,
  }: Pick<PreflightServices, 'store' | 'agents'> & {
    readonly scripts?: RecoveryScripts | undefined
  },
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
