/** Protected servers that are rows only, in every state that a test asks for. No site knows of them; what sites would say is handed over. */
import assert from 'node:assert/strict'
import { newId } from '#base/ids.ts'
import { findImageByName } from '#control/resources/images.ts'
import { defaultVpcId } from '#control/resources/networks.ts'
import { readMeta } from '#control/store/meta.ts'
import type { ProtectionGroupRow, ReplicationPairRow } from '#control/store/tables/resources.ts'
import type { ProtectedInstanceRow, ServerRow } from '#control/store/tables/servers.ts'
import type { SessionStatus } from '#wire/site/witness.ts'
import { type ApiLab, type Reply, SITES } from './api.ts'
import {
  disksOfPairs,
  groupRow,
  insertRows,
  instanceRow,
  ownershipRow,
  pairRow,
  reportOf,
  sessionOf,
} from './group-rows.ts'
import { insertServers } from './server-rows.ts'

export interface Machine {
  readonly server: string
  /** Its root disk and its only NIC. */
  readonly volume: string
  readonly port: string
}

export interface Protected {
  readonly group: ProtectionGroupRow
  readonly instance: ProtectedInstanceRow
  readonly pair: ReplicationPairRow
  readonly production: Machine
  readonly dr: Machine
}

export class SdrsWorld {
  readonly lab: ApiLab
  readonly project: string
  readonly token: string
  readonly vpc: string
  readonly domain: string
  readonly #image: string
  readonly #sessions: SessionStatus[] = []
  /** Numbers of servers, and so addresses, far from those that are given out by themselves. */
  #machines = 2_560

  private constructor(lab: ApiLab, token: string, domain: string, image: string) {
    this.lab = lab
    this.project = lab.admin.project_id
    this.vpc = defaultVpcId(this.project)
    this.token = token
    this.domain = domain
    this.#image = image
  }

  static async start(lab: ApiLab): Promise<SdrsWorld> {
    const token = await lab.adminToken()
    const headers = { 'x-auth-token': token }
    // The first look makes the default networks.
    await lab.call({ url: `/v1/${lab.admin.project_id}/vpcs`, headers })
    const domain = await lab.store.db
      .selectFrom('active_domains')
      .select('id')
      .executeTakeFirstOrThrow()
    const image = await findImageByName(lab.store.db, 'holdfast-tiny')
    return new SdrsWorld(lab, token, domain.id, image?.id ?? '')
  }

  async call(method: 'GET' | 'POST' | 'PUT' | 'DELETE', path: string, body?: unknown) {
    const headers = { 'x-auth-token': this.token }
    const url = `/v1/${this.project}/${path}`
    return await this.lab.call(
      { method, url, headers, ...(body === undefined ? {} : { body }) },
      'sdrs',
    )
  }

  async ok(
    method: 'GET' | 'POST' | 'PUT' | 'DELETE',
    path: string,
    body?: unknown,
  ): Promise<Reply['body']> {
    const reply = await this.call(method, path, body)
    assert.equal(reply.status, 200, `${method} ${path}: ${reply.text}`)
    return reply.body
  }

  async group(over: Partial<ProtectionGroupRow> = {}): Promise<ProtectionGroupRow> {
    const row = groupRow(this.project, { vpc: this.vpc, domain: this.domain, ...over })
    await insertRows(this.lab.store, { protection_groups: [row] })
    return row
  }

  async pair(
    group: ProtectionGroupRow,
    member: number,
    over: Partial<ReplicationPairRow> = {},
  ): Promise<ReplicationPairRow> {
    const row = pairRow(group, member, over)
    await insertRows(this.lab.store, {
      replication_pairs: [row],
      volumes: disksOfPairs(group, [row]),
    })
    return row
  }

  /** A running server in az1 with a disk and a NIC. */
  async machine(over: Partial<ServerRow> = {}): Promise<Machine> {
    const { store } = this.lab
    const before = new Set(
      (await store.db.selectFrom('servers').select('id').execute()).map(({ id }) => id),
    )
    await insertServers(store, this.project, 1, this.#image, ++this.#machines)
    const all = await store.db.selectFrom('servers').select('id').execute()
    const server = all.find(({ id }) => !before.has(id))?.id ?? assert.fail('a server was made')
    const disk = await store.db
      .selectFrom('server_disks')
      .select('volume')
      .where('server', '=', server)
      .executeTakeFirstOrThrow()
    const port = await store.db
      .selectFrom('ports')
      .select('id')
      .where('server', '=', server)
      .executeTakeFirstOrThrow()
    await store.write(async (tx) => {
      const change = { updated_at: 2, ...over }
      await tx.updateTable('servers').set(change).where('id', '=', server).execute()
      const { az } = over
      if (az === undefined) return
      await tx.updateTable('volumes').set({ az }).where('id', '=', disk.volume).execute()
    })
    return { server, volume: disk.volume, port: port.id }
  }

  /** A server with its copy at the other site, which is off, in a group that is available unless `over` says otherwise. */
  async protect(
    over: {
      readonly group?: Partial<ProtectionGroupRow>
      readonly instance?: Partial<ProtectedInstanceRow>
      readonly pair?: Partial<ReplicationPairRow>
      readonly production?: Partial<ServerRow>
      readonly dr?: Partial<ServerRow>
    } = {},
  ): Promise<Protected> {
    const status = over.group?.status ?? 'available'
    const group = await this.group(over.group)
    const id = newId()
    const production = await this.machine({ ...over.production, instance: id })
    const off = { az: 'az2', status: 'stopped', power: 'off' }
    const dr = await this.machine({ ...off, ...over.dr, instance: id })
    const instance = instanceRow(group, {
      id,
      status,
      source_server: production.server,
      target_server: dr.server,
      spare_port: dr.port,
      ...over.instance,
    })
    const pair = pairRow(group, 1, {
      status,
      source_volume: production.volume,
      target_volume: dr.volume,
      attachments: JSON.stringify([{ instance: id, device: '/dev/vda' }]),
      made_by: id,
      ...over.pair,
    })
    await insertRows(this.lab.store, { protected_instances: [instance], replication_pairs: [pair] })
    await this.lab.store.write(async (tx) => {
      await tx
        .updateTable('volumes')
        .set({ pair: pair.id })
        .where('id', 'in', [production.volume, dr.volume])
        .execute()
    })
    return { group, instance, pair, production, dr }
  }

  /** Replication is on and in sync, as the witness and the production site say; `session` has what the site says otherwise. */
  async replicate(
    { group, pair }: Pick<Protected, 'group' | 'pair'>,
    over: { readonly state?: string; readonly session?: Partial<SessionStatus> } = {},
  ): Promise<void> {
    const { store } = this.lab
    const { history_mark } = await readMeta(store.db)
    await store.write(async (tx) => {
      await tx
        .updateTable('replication_pairs')
        .set({ in_session: 1, never_replicated: 0, added_epoch: 1 })
        .where('id', '=', pair.id)
        .execute()
      await tx
        .insertInto('ownership')
        .values(ownershipRow(group, history_mark, over.state))
        .execute()
    })
    this.#sessions.push({ ...sessionOf(group.id, [pair]), ...over.session })
    await this.report()
  }

  /** These sites report now, and the others have not for long. However slow the machine is, the reports stay new until the next ones. */
  async report(sites: readonly string[] = SITES): Promise<void> {
    const { clock, agents } = this.lab
    clock.advance(LEAD_MS + 5_000)
    // Given at a time that has not come yet.
    clock.advance(LEAD_MS)
    for (const site of sites) await agents.receive(reportOf(site, this.#sessions))
    clock.advance(-LEAD_MS)
  }
}

const LEAD_MS = 60_000
