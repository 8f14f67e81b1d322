/** Requests of the volume API and the rows that they are about, for the tables of its codes. No site has any of it. */
import assert from 'node:assert/strict'
import { newHexId, newId } from '#base/ids.ts'
import { setQuotaLimit } from '#control/resources/surroundings.ts'
import { insertVolume, updateVolume } from '#control/resources/volumes.ts'
import type { OperationRow } from '#control/store/tables/operations.ts'
import type { VolumeRow } from '#control/store/tables/resources.ts'
import type { ApiLab } from './api.ts'
import type { Answered } from './codes.ts'
import { insertServers } from './server-rows.ts'

type Method = 'GET' | 'POST' | 'PUT' | 'DELETE'

export const VOLUMES = '/v2/{project}/volumes'
export const CLOUD = '/v2/{project}/cloudvolumes'

export type EvsAsks = ReturnType<typeof evsAsks>

export function evsAsks(lab: ApiLab, token: string) {
  const project = lab.admin.project_id
  /** Held against the contract, except where the contract has no such path. */
  async function send(
    method: Method,
    path: string,
    body?: unknown,
    as: string | null = token,
  ): Promise<Answered> {
    const url = path.replace('{project}', project)
    const headers: Record<string, string> = as === null ? {} : { 'x-auth-token': as }
    return await lab.call({ method, url, headers, ...(body === undefined ? {} : { body }) }, 'evs')
  }

  const create = (volume: object, path = VOLUMES) =>
    send('POST', path, { volume: { size: 1, availability_zone: 'az1', ...volume } })

  async function volumeRow(change: Partial<VolumeRow> = {}): Promise<string> {
    const id = newId()
    const made = {
      id,
      project,
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
    await lab.store.write(async (tx) => {
      await insertVolume(tx, made, lab.clock.wallMs())
      await updateVolume(tx, id, { status: 'available', ...change }, lab.clock.wallMs())
    })
    return id
  }

  async function snapshotRow(status: string, site = 'az1'): Promise<string> {
    const id = newId()
    const row = {
      id,
      project,
      name: 's',
      description: null,
      metadata: '{}',
      size_gb: 2,
      group_id: null,
      site,
      volumes: JSON.stringify([await volumeRow({ az: site })]),
      status,
      facts: null,
      failure_detail: null,
      created_at: 1,
      updated_at: 1,
    }
    await lab.store.write((tx) => tx.insertInto('snapshots').values(row).execute())
    return id
  }

  let ordinal = 1_000
  const operationRow = (change: Partial<OperationRow>): OperationRow => {
    const id = newHexId()
    return {
      id,
      kind: 'volume.create',
      version: 1,
      project,
      ordinal: ++ordinal,
      resource_type: 'volume',
      resource_id: newId(),
      parent: null,
      root: id,
      input: '{}',
      status: 'failed',
      step: 0,
      progress: 0,
      joining: 0,
      cancel_wanted: 0,
      attempts: 1,
      run_at: 0,
      error_code: 'SITE_REFUSED',
      fail_reason: 'the site refused',
      failed_step: 'create',
      entities: '{}',
      created_at: 1,
      begin_at: 1,
      end_at: 2,
      lease_owner: null,
      lease_beat: 0,
      lease_beat_at: null,
      ...change,
    }
  }

  /** The code stands in the job, not in an error. */
  async function failedJob(kind: string): Promise<Answered> {
    const row = operationRow({ kind })
    await lab.store.write((tx) => tx.insertInto('operations').values(row).execute())
    const { status, body } = await send('GET', `/v1/{project}/jobs/${row.id}`)
    assert.equal(body.status, 'FAIL')
    return { status, body: { error: { code: body.error_code } } }
  }

  async function withQuota(kind: 'volumes' | 'gigabytes', path: string): Promise<Answered> {
    await lab.store.write((tx) => setQuotaLimit(tx, project, kind, 0))
    const reply = await create({}, path)
    await lab.store.write((tx) => setQuotaLimit(tx, project, kind, -1))
    return reply
  }

  async function serverWithoutState(): Promise<Answered> {
    const image = await lab.store.db.selectFrom('images').select('id').executeTakeFirstOrThrow()
    await insertServers(lab.store, project, 1, image.id)
    const { volume } = await lab.store.db
      .selectFrom('server_disks')
      .select('volume')
      .executeTakeFirstOrThrow()
    await lab.store.write((tx) => tx.updateTable('servers').set({ status: 'error' }).execute())
    return await send('POST', `${VOLUMES}/${volume}/action`, { 'os-extend': { new_size: 9 } })
  }

  /** As many operations wait as may. */
  async function queueFull(): Promise<Answered> {
    await lab.store.write(async (tx) => {
      for (let at = 0; at < 10_000; at += 200) {
        const rows = Array.from({ length: 200 }, () =>
          operationRow({ status: 'pending', run_at: Number.MAX_SAFE_INTEGER, end_at: null }),
        )
        await tx.insertInto('operations').values(rows).execute()
      }
    })
    const reply = await create({})
    await lab.store.write((tx) =>
      tx.deleteFrom('operations').where('status', '=', 'pending').execute(),
    )
    return reply
  }

  const act = async (change: Partial<VolumeRow>, action: object) =>
    await send('POST', `${VOLUMES}/${await volumeRow(change)}/action`, action)

  return {
    lab,
    project,
    send,
    create,
    volumeRow,
    snapshotRow,
    failedJob,
    withQuota,
    serverWithoutState,
    queueFull,
    act,
  }
}
