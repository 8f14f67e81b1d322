/** Protection groups and pairs that are rows only, for tests of lists and for measuring them. Nobody made them, and no site holds their disks. */
import { newId } from '#base/ids.ts'
import { readMeta } from '#control/store/meta.ts'
import type { Store } from '#control/store/store.ts'
import type { DrillRow } from '#control/store/tables/drills.ts'
import type {
  ProtectionGroupRow,
  ReplicationPairRow,
  VolumeRow,
} from '#control/store/tables/resources.ts'
import type { OwnershipRow } from '#control/store/tables/sites.ts'
import type { ProtectedInstanceRow } from '#control/store/tables/servers.ts'
import type { Report, SessionStatus } from '#wire/site/witness.ts'
import { sessionStatus } from './session-status.ts'

/** The row of a group of its own between az1 and az2; `over` has what the test is about. */
export const groupRow = (
  project: string,
  over: Partial<ProtectionGroupRow> = {},
): ProtectionGroupRow => ({
  id: newId(),
  project,
  form: 'sdrs',
  name: 'group',
  description: null,
  status: 'available',
  station: 'source',
  reversing_to: null,
  source_az: 'az1',
  target_az: 'az2',
  domain: newId(),
  vpc: newId(),
  start_servers: 0,
  next_member: 1_000,
  failure_detail: null,
  created_at: 1,
  updated_at: 1,
  ...over,
})

/** A drill of the group that is there, of no disks. */
export const drillRow = (group: ProtectionGroupRow, over: Partial<DrillRow> = {}): DrillRow => ({
  id: newId(),
  project: group.project,
  group_id: group.id,
  name: 'd',
  status: 'available',
  az: group.target_az,
  vpc: newId(),
  snapshot: newId(),
  user_id: 'u',
  options: '{}',
  schedule: null,
  auto_delete: 0,
  findings: null,
  failure_detail: null,
  began_at: null,
  plan: null,
  forced_at: null,
  created_at: 1,
  updated_at: 1,
  ...over,
})

/** A pair that nothing is known to be wrong with; its disks have to be inserted as well. */
export const pairRow = (
  group: Pick<ProtectionGroupRow, 'id' | 'project'>,
  member: number,
  over: Partial<ReplicationPairRow> = {},
): ReplicationPairRow => ({
  id: newId(),
  project: group.project,
  group_id: group.id,
  name: `pair-${member}`,
  description: null,
  status: 'available',
  source_volume: newId(),
  target_volume: newId(),
  target_first: 0,
  member,
  in_session: 0,
  added_epoch: 0,
  blank_epoch: null,
  never_replicated: 1,
  progress: 0,
  attachments: '[]',
  failure_detail: null,
  made_by: null,
  created_at: 1,
  updated_at: 1,
  ...over,
})

export const volumeRow = (
  project: string,
  az: string,
  over: Partial<VolumeRow> = {},
): VolumeRow => ({
  id: newId(),
  project,
  name: 'disk',
  description: null,
  size_gb: 1,
  volume_type: 'SSD',
  az,
  status: 'available',
  metadata: '{}',
  bootable: 0,
  multiattach: 0,
  attachments: '[]',
  pair: null,
  image: null,
  snapshot: null,
  user_id: 'u',
  created_at: 1,
  updated_at: 1,
  ...over,
})

/** An instance whose servers do not exist unless they are inserted: it is shown as invalid then. */
export const instanceRow = (
  group: Pick<ProtectionGroupRow, 'id' | 'project'>,
  over: Partial<ProtectedInstanceRow> = {},
): ProtectedInstanceRow => ({
  id: newId(),
  project: group.project,
  group_id: group.id,
  name: 'instance',
  description: null,
  status: 'available',
  source_server: newId(),
  target_server: newId(),
  spare_port: null,
  failure_detail: null,
  created_at: 1,
  updated_at: 1,
  ...over,
})

/** The two disks of each pair, at the sites of their group. */
export const disksOfPairs = (
  group: Pick<ProtectionGroupRow, 'source_az' | 'target_az'>,
  pairs: readonly ReplicationPairRow[],
): VolumeRow[] =>
  pairs.flatMap((pair) => [
    volumeRow(pair.project, group.source_az, { id: pair.source_volume, pair: pair.id }),
    volumeRow(pair.project, group.target_az, { id: pair.target_volume, pair: pair.id }),
  ])

interface Rows {
  readonly protection_groups?: readonly ProtectionGroupRow[]
  readonly replication_pairs?: readonly ReplicationPairRow[]
  readonly protected_instances?: readonly ProtectedInstanceRow[]
  readonly volumes?: readonly VolumeRow[]
}

/** In one transaction; both engines bound the number of parameters of a statement. */
export async function insertRows(store: Store, rows: Rows): Promise<void> {
  const { protection_groups, replication_pairs, protected_instances, volumes } = rows
  await store.write(async (tx) => {
    for (const part of parts(protection_groups)) {
      await tx.insertInto('protection_groups').values(part).execute()
    }
    for (const part of parts(replication_pairs)) {
      await tx.insertInto('replication_pairs').values(part).execute()
    }
    for (const part of parts(protected_instances)) {
      await tx.insertInto('protected_instances').values(part).execute()
    }
    for (const part of parts(volumes)) await tx.insertInto('volumes').values(part).execute()
  })
}

function* parts<Row>(rows: readonly Row[] = []): Generator<Row[]> {
  for (let at = 0; at < rows.length; at += 100) yield rows.slice(at, at + 100)
}

export interface GroupsInSync {
  readonly groups: readonly ProtectionGroupRow[]
  readonly pairs: readonly ReplicationPairRow[]
  /** What the writing site would report about each group. */
  readonly sessions: readonly SessionStatus[]
}

/** The witness's record of a group: in sync, unless `state` says otherwise. */
export const ownershipRow = (
  group: Pick<ProtectionGroupRow, 'id' | 'source_az' | 'target_az'>,
  history_mark: string,
  state = 'in_sync',
): OwnershipRow => ({
  session: group.id,
  epoch: 2,
  state,
  writer: group.source_az,
  replica: group.target_az,
  mode: 'witness',
  preferred: group.source_az,
  incarnation: 'seeded',
  attempt: 'seeded-rows',
  lease_holder: null,
  lease_ends_boot_ms: null,
  lease_boot_id: null,
  lease_ms: null,
  alone: null,
  serial: 1,
  history_mark,
  heard: '{}',
  updated_at: 1,
})

/** Protected groups with pairs, disks and ownership records, all in sync as far as the database is concerned. */
export async function insertGroupsInSync(
  store: Store,
  project: string,
  options: { readonly groups: number; readonly pairsPerGroup: number; readonly domain?: string },
): Promise<GroupsInSync> {
  const { domain } = options
  const groups: ProtectionGroupRow[] = []
  const pairs: ReplicationPairRow[] = []
  const volumes: VolumeRow[] = []
  for (let at = 0; at < options.groups; at++) {
    const group = groupRow(project, {
      name: `group-${String(at).padStart(4, '0')}`,
      status: 'protected',
      created_at: 1_000 + at,
      ...(domain === undefined ? {} : { domain }),
    })
    const own = Array.from({ length: options.pairsPerGroup }, (_, member) =>
      pairRow(group, member + 1, {
        name: `${group.name}-${member}`,
        status: 'protected',
        in_session: 1,
        never_replicated: 0,
        progress: 100,
        created_at: 1_000 + at * options.pairsPerGroup + member,
      }),
    )
    groups.push(group)
    pairs.push(...own)
    volumes.push(...disksOfPairs(group, own))
  }
  await insertRows(store, { protection_groups: groups, replication_pairs: pairs, volumes })
  const { history_mark } = await readMeta(store.db)
  await store.write(async (tx) => {
    for (const group of groups) {
      await tx.insertInto('ownership').values(ownershipRow(group, history_mark)).execute()
    }
  })
  const byGroup = Map.groupBy(pairs, (pair) => pair.group_id)
  return {
    groups,
    pairs,
    sessions: groups.map((group) => sessionOf(group.id, byGroup.get(group.id) ?? [])),
  }
}

/** What the writing site would report about a group in sync. */
export const sessionOf = (session: string, pairs: readonly ReplicationPairRow[]): SessionStatus =>
  sessionStatus({
    session,
    epoch: 2,
    peer_silence_ms: 10,
    sequence: 1,
    acknowledged: 1,
    members: pairs.map((pair) => ({
      volume: pair.source_volume,
      pair: pair.id,
      joined: true,
      copied_bytes: 0,
      size_bytes: 1_073_741_824,
    })),
  })

/** What a site's agent would report about these sessions. */
export const reportOf = (site: string, sessions: readonly SessionStatus[]): Report => ({
  site,
  agent: 'agent-1',
  boot_id: 'boot',
  run_id: 'run',
  version: '0.0.0',
  command_address: '127.0.0.1:1',
  link_address: '127.0.0.1:2',
  nbd_unix: '/nowhere',
  nbd_tcp: null,
  nbd_tls: false,
  free_bytes: 1e12,
  sessions: [...sessions],
})
