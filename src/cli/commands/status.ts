import type { Command } from 'commander'
import { NOBODY_THERE } from '#base/system/door.ts'
import { isFault } from '#base/fault.ts'
import type { ApiSession } from '#client/api.ts'
import { listVolumes } from '#client/evs.ts'
import { listGroups, listPairs, type SdrsGroup, type SdrsPair } from '#client/sdrs.ts'
import { listServers } from '#client/servers.ts'
import type { CommandContext } from '../context.ts'
import { columns } from '../output.ts'
import { apiAction, apiLeaf } from '../session.ts'
import type { PartStatus } from '../up/supervisor.ts'
import { dataOfUp, knockUp } from './site.ts'

/* `holdfast status`: what runs, and how well each group is protected, in one look. */

export function statusCommand(program: Command, context: CommandContext): void {
  const command = apiLeaf(context, program, 'status').description(
    'show the parts of `holdfast up`, and how well each group is protected',
  )
  apiAction<{ data?: string }>(context, command, async (api, output, flags) => {
    const parts = await partsOf(dataOfUp(flags, context.env))
    const groups = await groupsOf(api)
    const volumes = (await listVolumes(api)).length
    const servers = await serversOf(api)
    const running = servers['ACTIVE'] ?? 0
    const all = Object.values(servers).reduce((sum, count) => sum + count, 0)
    output.result({ url: api.url, parts, groups, volumes, servers }, [
      `API at ${api.url}, ${volumes} volumes, ${all} servers of which ${running} run`,
      ...(parts === null ? [] : ['', ...partLines(parts)]),
      '',
      ...groupLines(groups),
    ])
  })
}

/** The parts of a supervisor; null when there is none, as with parts on separate machines. */
async function partsOf(data: string): Promise<readonly PartStatus[] | null> {
  try {
    const { parts } = (await knockUp(data, { command: 'status' })) as { parts: PartStatus[] }
    return parts
  } catch (error) {
    if (isFault(error, NOBODY_THERE)) return null
    throw error
  }
}

/** How many there are, by status. */
async function serversOf(api: ApiSession): Promise<Readonly<Record<string, number>>> {
  const counts: Record<string, number> = {}
  for (const { status } of await listServers(api)) counts[status] = (counts[status] ?? 0) + 1
  return counts
}

interface GroupStatus extends SdrsGroup {
  readonly pairs: readonly SdrsPair[]
}

async function groupsOf(api: ApiSession): Promise<GroupStatus[]> {
  const [groups, pairs] = await Promise.all([listGroups(api), listPairs(api)])
  return groups.map((group) => ({
    ...group,
    pairs: pairs.filter((pair) => pair.server_group_id === group.id),
  }))
}

const partLines = (parts: readonly PartStatus[]): string[] =>
  columns(
    ['part', 'site', 'state', 'pid', 'restarts', 'for'],
    parts.map((one) => [
      one.part,
      one.site,
      one.state,
      one.pid,
      one.deaths,
      one.ready_for_ms === null ? null : `${Math.round(one.ready_for_ms / 1000)} s`,
    ]),
  )

function groupLines(groups: readonly GroupStatus[]): string[] {
  if (groups.length === 0) return ['no protection groups']
  return columns(
    ['group', 'name', 'status', 'production', 'pairs in sync', 'progress'],
    groups.map((one) => [
      one.id,
      one.name,
      one.status,
      one.priority_station === 'source'
        ? one.source_availability_zone
        : one.target_availability_zone,
      `${one.pairs.filter((pair) => pair.replication_status === 'active').length} of ${one.pairs.length}`,
      `${one.progress} %`,
    ]),
  )
}
