/** Requests of SDRS and the rows that they are about, as the situations of sdrs-situations.ts put them together. */
import { newId } from '#base/ids.ts'
import { insertSubnet, insertVpc } from '#control/resources/networks.ts'
import { setQuotaLimit } from '#control/resources/surroundings.ts'
import type { QuotaKind } from '#domain/quota.ts'
import { drillRow, insertRows, volumeRow } from './group-rows.ts'
import type { Protected, SdrsWorld } from './sdrs-world.ts'

type Method = 'GET' | 'POST' | 'PUT' | 'DELETE'
export type Asked = readonly [method: Method, path: string, body?: unknown]
export type Situation = () => Asked | Promise<Asked>

export const GROUPS = 'server-groups'
export const PAIRS = 'replications'
export const INSTANCES = 'protected-instances'
export const DRILLS = 'disaster-recovery-drills'

export class SdrsAsks {
  readonly world: SdrsWorld
  /** Of the project, for NICs. */
  readonly subnet: string
  #tagged: string | undefined

  constructor(world: SdrsWorld, subnet: string) {
    this.world = world
    this.subnet = subnet
  }

  newGroup(over: object = {}): Asked {
    return [
      'POST',
      GROUPS,
      {
        server_group: {
          name: 'g',
          source_availability_zone: 'az1',
          target_availability_zone: 'az2',
          domain_id: this.world.domain,
          source_vpc_id: this.world.vpc,
          ...over,
        },
      },
    ]
  }

  act(group: string, action: string, value: unknown = {}): Asked {
    return ['POST', `${GROUPS}/${group}/action`, { [`${action}-server-group`]: value }]
  }

  async newPair(over: object = {}, disk: object = {}): Promise<Asked> {
    const group = await this.world.group()
    const volume = volumeRow(this.world.project, 'az1', disk)
    await insertRows(this.world.lab.store, { volumes: [volume] })
    const body = { server_group_id: group.id, volume_id: volume.id, name: 'p', ...over }
    return ['POST', PAIRS, { replication: body }]
  }

  async newInstance(over: object = {}, change: object = {}): Promise<Asked> {
    const group = await this.world.group()
    const { server } = await this.world.machine(change)
    const body = { server_group_id: group.id, server_id: server, name: 'i', ...over }
    return ['POST', INSTANCES, { protected_instance: body }]
  }

  newDrill(group: string, over: object = {}): Asked {
    return [
      'POST',
      DRILLS,
      { disaster_recovery_drill: { server_group_id: group, name: 'd', ...over } },
    ]
  }

  attach(instance: string, pair: string, device = '/dev/vdb'): Asked {
    return [
      'POST',
      `${INSTANCES}/${instance}/attachreplication`,
      { replicationAttachment: { replication_id: pair, device } },
    ]
  }

  nic(instance: string, over: object = {}): Asked {
    return ['POST', `${INSTANCES}/${instance}/nic`, { subnet_id: this.subnet, ...over }]
  }

  resize(instance: string, over: object = { flavorRef: 't2.small' }): Asked {
    return ['POST', `${INSTANCES}/${instance}/resize`, { resize: over }]
  }

  tag(instance: string, key: unknown, value: unknown): Asked {
    return ['POST', `${INSTANCES}/${instance}/tags`, { tag: { key, value } }]
  }

  tags(instance: string, body: unknown): Asked {
    return ['POST', `${INSTANCES}/${instance}/tags/action`, body]
  }

  query(body: object): Asked {
    return ['POST', `${INSTANCES}/resource_instances/action`, { action: 'filter', ...body }]
  }

  expand(pair: string, size = 2): Asked {
    return ['POST', `${PAIRS}/${pair}/action`, { 'extend-replication': { new_size: size } }]
  }

  async change(
    table:
      | 'protection_groups'
      | 'protected_instances'
      | 'replication_pairs'
      | 'volumes'
      | 'servers',
    id: string,
    columns: object,
  ): Promise<void> {
    await this.world.lab.store.write((tx) =>
      tx.updateTable(table).set(columns).where('id', '=', id).execute(),
    )
  }

  async full(kind: QuotaKind, run: () => Asked | Promise<Asked>): Promise<Asked> {
    const asked = await run()
    await this.world.lab.store.write((tx) => setQuotaLimit(tx, this.world.project, kind, 0))
    return asked
  }

  async free(): Promise<void> {
    await this.world.lab.store.write((tx) => tx.deleteFrom('quotas').execute())
  }

  /** A group that replicates, all servers off. */
  async inSync(session: Parameters<SdrsWorld['replicate']>[1] = {}): Promise<Protected> {
    const made = await this.world.protect({
      group: { status: 'protected' },
      production: { status: 'stopped', power: 'off' },
    })
    await this.world.replicate(made, session)
    return made
  }

  /** A group with a drill; the drill's row. */
  async withDrill(status: string, made?: Protected, vpc = newId()) {
    const { group } = made ?? (await this.inSync())
    const row = drillRow(group, { status, vpc })
    await this.world.lab.store.write((tx) => tx.insertInto('drills').values(row).execute())
    return { id: row.id, group }
  }

  async vpcOf(...cidrs: string[]): Promise<string> {
    const id = newId()
    await this.world.lab.store.write(async (tx) => {
      const shared = { project: this.world.project, created_at: 1, description: '' }
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

  async busy(over: Parameters<SdrsWorld['protect']>[0]) {
    return (await this.world.protect(over)).instance.id
  }

  async plain() {
    return (await this.world.protect()).instance.id
  }

  /** For all tests of tags: none of them changes it. */
  async ofTags() {
    return (this.#tagged ??= await this.plain())
  }

  async pairOf(over: object = {}, group: object = {}) {
    return (await this.world.pair(await this.world.group(group), 1, over)).id
  }
}
