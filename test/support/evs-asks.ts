/** Requests of the volume API and the rows that they are about, for the tables of its codes. No site has any of it. */
import assert from 'node:assert/strict'
import { newId } from '#base/ids.ts'
import { setQuotaLimit } from '#control/resources/surroundings.ts'
import { insertVolume, updateVolume } from '#control/resources/volumes.ts'
import type { OperationRow } from '#control/store/tables/operations.ts'
import type { VolumeRow } from '#control/store/tables/resources.ts'
import type { ApiLab } from './api.ts'
import type { Answered } from './codes.ts'
import { operationRow } from './operation-rows.ts'
import { insertServers } from './server-rows.ts'

type Method = 'GET' | 'POST' | 'PUT' | 'DELETE'

export const VOLUMES = '/v2/{project}/volumes'
export const CLOUD = '/v2/{project}/cloudvolumes'

export class EvsAsks {
  readonly lab: ApiLab
  readonly project: string
  readonly #token: string
  #ordinal = 1_000

  constructor(lab: ApiLab, token: string) {
    this.lab = lab
    this.project = lab.admin.project_id
    this.#token = token
  }

  /** Held against the contract, except where the contract has no such path. */
  async send(
    method: Method,
    path: string,
    body?: unknown,
    as: string | null = this.#token,
  ): Promise<Answered> {
    const url = path.replace('{project}', this.project)
    const headers: Record<string, string> = as === null ? {} : { 'x-auth-token': as }
    return await this.lab.call(
      { method, url, headers, ...(body === undefined ? {} : { body }) },
      'evs',
    )
  }

  create(volume: object, path = VOLUMES) {
    return this.send('POST', path, { volume: { size: 1, availability_zone: 'az1', ...volume } })
  }

  async volumeRow(change: Partial<VolumeRow> = {}): Promise<string> {
    const id = newId()
    const made = {
      id,
      project: this.project,
      name: 'v',
      description: null,
      sizeGb: 2,
      type: 'SAS',
      az: 'az1',
      metadata: {},
      bootable: false,
      multiattach: false,
      pair: null,
      user: 'u',
    }
    await this.lab.store.write(async (tx) => {
      await insertVolume(tx, made, this.lab.clock.wallMs())
      await updateVolume(tx, id, { status: 'available', ...change }, this.lab.clock.wallMs())
    })
    return id
  }

  async snapshotRow(status: string, site = 'az1'): Promise<string> {
    const id = newId()
    const row = {
      id,
      project: this.project,
      name: 's',
      description: null,
      metadata: '{}',
      size_gb: 2,
      group_id: null,
      site,
      volumes: JSON.stringify([await this.volumeRow({ az: site })]),
      status,
      facts: null,
      failure_detail: null,
      created_at: 1,
      updated_at: 1,
    }
    await this.lab.store.write((tx) => tx.insertInto('snapshots').values(row).execute())
    return id
  }

  operationRow(over: Partial<OperationRow>): OperationRow {
    return operationRow({ project: this.project, ordinal: ++this.#ordinal, ...over })
  }

  /** The code stands in the job, not in an error. */
  async failedJob(kind: string): Promise<Answered> {
    const row = this.operationRow({ kind })
    await this.lab.store.write((tx) => tx.insertInto('operations').values(row).execute())
    const { status, body } = await this.send('GET', `/v1/{project}/jobs/${row.id}`)
    assert.equal(body.status, 'FAIL')
    return { status, body: { error: { code: body.error_code } } }
  }

  async withQuota(kind: 'volumes' | 'gigabytes', path: string): Promise<Answered> {
    await this.lab.store.write((tx) => setQuotaLimit(tx, this.project, kind, 0))
    const reply = await this.create({}, path)
    await this.lab.store.write((tx) => setQuotaLimit(tx, this.project, kind, -1))
    return reply
  }

  async serverWithoutState(): Promise<Answered> {
    const image = await this.lab.store.db
      .selectFrom('images')
      .select('id')
      .executeTakeFirstOrThrow()
    await insertServers(this.lab.store, this.project, 1, image.id)
    const { volume } = await this.lab.store.db
      .selectFrom('server_disks')
      .select('volume')
      .executeTakeFirstOrThrow()
    await this.lab.store.write((tx) => tx.updateTable('servers').set({ status: 'error' }).execute())
    return await this.send('POST', `${VOLUMES}/${volume}/action`, { 'os-extend': { new_size: 9 } })
  }

  /** As many operations wait as may. */
  async queueFull(): Promise<Answered> {
    await this.lab.store.write(async (tx) => {
      for (let at = 0; at < 10_000; at += 200) {
        const rows = Array.from({ length: 200 }, () =>
          this.operationRow({ status: 'pending', run_at: Number.MAX_SAFE_INTEGER, end_at: null }),
        )
        await tx.insertInto('operations').values(rows).execute()
      }
    })
    const reply = await this.create({})
    await this.lab.store.write((tx) =>
      tx.deleteFrom('operations').where('status', '=', 'pending').execute(),
    )
    return reply
  }

  async act(change: Partial<VolumeRow>, action: object) {
    return await this.send('POST', `${VOLUMES}/${await this.volumeRow(change)}/action`, action)
  }
}
