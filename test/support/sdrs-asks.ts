/** Requests of SDRS and the rows that they are about, as the situations of sdrs-situations.ts put them together. */
import { newId } from '#base/ids.ts'
import { insertSubnet, insertVpc } from '#control/resources/networks.ts'
import { setQuotaLimit } from '#control/resources/surroundings.ts'
import type { QuotaKind } from '#domain/quota.ts'
import { insertRows, volumeRow } from './group-rows.ts'
import type { Protected, SdrsWorld } from './sdrs-world.ts'

type Method = 'GET' | 'POST' | 'PUT' | 'DELETE'
export type Asked = readonly [method: Method, path: string, body?: unknown]
export type Situation = () => Asked | Promise<Asked>

export const GROUPS = 'server-groups'
export const PAIRS = 'replications'
export const INSTANCES = 'protected-instances'
export const DRILLS = 'disaster-recovery-drills'

export type SdrsAsks = ReturnType<typeof sdrsAsks>

/** `subnet`: of the project, for NICs. */
export function sdrsAsks(world: SdrsWorld, subnet: string) {
  const newGroup = (over: object = {}): Asked => [
    'POST',
    GROUPS,
    {
      server_group: {
        name: 'g',
        source_availability_zone: 'az1',
        target_availability_zone: 'az2',
        domain_id: world.domain,
        source_vpc_id: world.vpc,
        ...over,
      },
    },
  ]
  const act = (group: string, action: string, value: unknown = {}): Asked => [
    'POST',
    `${GROUPS}/${group}/action`,
    { [`${action}-server-group`]: value },
  ]
  const newPair = async (over: object = {}, disk: object = {}): Promise<Asked> => {
    const group = await world.group()
    const volume = volumeRow(world.project, 'az1', disk)
    await insertRows(world.lab.store, { volumes: [volume] })
    const body = { server_group_id: group.id, volume_id: volume.id, name: 'p', ...over }
    return ['POST', PAIRS, { replication: body }]
  }
  const newInstance = async (over: object = {}, change: object = {}): Promise<Asked> => {
    const group = await world.group()
    const { server } = await world.machine(change)
    const body = { server_group_id: group.id, server_id: server, name: 'i', ...over }
    return ['POST', INSTANCES, { protected_instance: body }]
  }
  const newDrill = (group: string, over: object = {}): Asked => [
    'POST',
    DRILLS,
    { disaster_recovery_drill: { server_group_id: group, name: 'd', ...over } },
  ]
  const attach = (instance: string, pair: string, device = '/dev/vdb'): Asked => [
    'POST',
    `${INSTANCES}/${instance}/attachreplication`,
    { replicationAttachment: { replication_id: pair, device } },
  ]
  const nic = (instance: string, over: object = {}): Asked => [
    'POST',
    `${INSTANCES}/${instance}/nic`,
    { subnet_id: subnet, ...over },
  ]
  const resize = (instance: string, over: object = { flavorRef: 't2.small' }): Asked => [
    'POST',
    `${INSTANCES}/${instance}/resize`,
    { resize: over },
  ]
  const tag = (instance: string, key: unknown, value: unknown): Asked => [
    'POST',
    `${INSTANCES}/${instance}/tags`,
    { tag: { key, value } },
  ]
  const tags = (instance: string, body: unknown): Asked => [
    'POST',
    `${INSTANCES}/${instance}/tags/action`,
    body,
  ]
  const query = (body: object): Asked => [
    'POST',
    `${INSTANCES}/resource_instances/action`,
    { action: 'filter', ...body },
  ]
  const expand = (pair: string, size = 2): Asked => [
    'POST',
    `${PAIRS}/${pair}/action`,
    { 'extend-replication': { new_size: size } },
  ]

  const change = async (
    table:
      | 'protection_groups'
      | 'protected_instances'
      | 'replication_pairs'
      | 'volumes'
      | 'servers',
    id: string,
    columns: object,
  ): Promise<void> => {
    await world.lab.store.write((tx) =>
      tx.updateTable(table).set(columns).where('id', '=', id).execute(),
    )
  }
  const full = async (kind: QuotaKind, run: () => Asked | Promise<Asked>): Promise<Asked> => {
    const asked = await run()
    await world.lab.store.write((tx) => setQuotaLimit(tx, world.project, kind, 0))
    return asked
  }
  const free = async (): Promise<void> => {
    await world.lab.store.write((tx) => tx.deleteFrom('quotas').execute())
  }
  /** A group that replicates, all servers off. */
  const inSync = async (
    session: Parameters<SdrsWorld['replicate']>[1] = {},
  ): Promise<Protected> => {
    const made = await world.protect({
      group: { status: 'protected' },
      production: { status: 'stopped', power: 'off' },
    })
    await world.replicate(made, session)
    return made
  }
  /** A group with a drill; the drill's row. */
  const withDrill = async (status: string, made?: Protected, vpc = newId()) => {
    const { group } = made ?? (await inSync())
    const id = newId()
    await world.lab.store.write((tx) =>
      tx
        .insertInto('drills')
        .values({
          id,
          project: world.project,
          group_id: group.id,
          name: 'd',
          status,
          az: 'az2',
          vpc,
          snapshot: newId(),
          user_id: 'u',
          options: '{}',
          schedule: null,
          auto_delete: 0,
          findings: null,
          failure_detail: null,
          created_at: 1,
          updated_at: 1,
        })
        .execute(),
    )
    return { id, group }
  }
  const vpcOf = async (...cidrs: string[]): Promise<string> => {
    const id = newId()
    await world.lab.store.write(async (tx) => {
      const shared = { project: world.project, created_at: 1, description: '' }
      await insertVpc(tx, { ...shared, id, name: 'drill', cidr: '10.0.0.0/8' })
      for (const cidr of cidrs) {
        await insertSubnet(tx, {
          ...shared,
          id: newId(),
          neutron_subnet: newId(),
          vpc: id,
          name: newId().slice(0, 8),
          cidr,
          gateway: cidr.replace(/\d+\/.*/, '1'),
          dhcp: 1,
          dns: '[]',
          az: null,
        })
      }
    })
    return id
  }
  const busy = async (over: Parameters<SdrsWorld['protect']>[0]) =>
    (await world.protect(over)).instance.id
  const plain = async () => (await world.protect()).instance.id
  /** All tests of tags on one instance: none of them changes it. */
  let tagged: string | undefined
  const ofTags = async () => (tagged ??= await plain())
  const pairOf = async (over: object = {}, group: object = {}) =>
    (await world.pair(await world.group(group), 1, over)).id

  return {
    subnet,
    newGroup,
    act,
    newPair,
    newInstance,
    newDrill,
    attach,
    nic,
    resize,
    tag,
    tags,
    query,
    expand,
    change,
    full,
    free,
    inSync,
    withDrill,
    vpcOf,
    busy,
    plain,
    ofTags,
    pairOf,
  }
}
