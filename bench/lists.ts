/* Question: how long does a list of 1,000 servers take, and of 1,000 protected instances with two pairs each?
 *
 * The public API over SQLite in this process, with 1,000 rows of servers that nobody made, each with a disk and a NIC. Every list is asked for 200
 * times, one after the other, by a caller with a token; the figure is the 99th percentile from the request to the last byte of the answer, without
 * sockets. Bound: 50 ms.
 *
 * What would make it meaningless: other processes (weighed; a batch that was disturbed is repeated, and marked when that did not help); lists
 * that are shorter than asked for (checked). */
import { tmpdir } from 'node:os'
import { newId } from '#base/ids.ts'
import { findImageByName } from '#control/resources/images.ts'
import type { Store } from '#control/store/store.ts'
import { ApiLab } from '../test/support/api.ts'
import { insertServers } from '../test/support/server-rows.ts'
import { Lines } from './lib/lines.ts'
import { machineFacts } from './lib/machine.ts'
import { measurePage } from './lib/pages.ts'

const SERVERS = 1_000
const REQUESTS = 200
const WARM_UP = 20
const BOUND_MS = 50
const PROTECTABLES = 'protectables/OS::Nova::Server/instances'

export async function benchLists(options: { readonly json: boolean }): Promise<void> {
  const lines = new Lines(options.json, machineFacts(tmpdir()))
  const lab = await ApiLab.start()
  try {
    const headers = { 'x-auth-token': await lab.adminToken(), host: '127.0.0.1:7410' }
    const project = lab.admin.project_id
    const image = await findImageByName(lab.store.db, 'holdfast-tiny')
    await lab.call({ url: `/v1/${project}/vpcs`, headers })
    await insertServers(lab.store, project, SERVERS, image?.id ?? '')
    await insertInstances(lab.store, project)
    for (const [name, path, count] of [
      ['servers, everything about each', `/v2.1/${project}/servers/detail`, SERVERS],
      ['servers, names', `/v2.1/${project}/servers`, SERVERS],
      ['cloudservers, 1000 on a page', `/v1/${project}/cloudservers/detail?limit=1000`, SERVERS],
      ['cloudservers, 25 on a page', `/v1/${project}/cloudservers/detail`, 25],
      ['what can be backed up', `/v1/${project}/${PROTECTABLES}`, SERVERS],
      ['what can be backed up, 50 on a page', `/v1/${project}/${PROTECTABLES}?limit=50`, 50],
      ['protected instances', `/v1/${project}/protected-instances`, SERVERS],
      ['protected instances, 50 of them', `/v1/${project}/protected-instances?limit=50`, 50],
    ] as const) {
      await measurePage(lab, lines, {
        name,
        url: path,
        headers,
        rows: count,
        warmUp: WARM_UP,
        requests: REQUESTS,
        share: 0.99,
        boundMs: BOUND_MS,
      })
    }
  } finally {
    await lab.stop()
  }
}

/** One group with an instance for each server that is there, and two pairs in each. */
async function insertInstances(store: Store, project: string): Promise<void> {
  const group = newId()
  const times = { created_at: 1, updated_at: 1 }
  await store.write(async (tx) => {
    await tx
      .insertInto('protection_groups')
      .values({
        id: group,
        project,
        form: 'sdrs',
        name: 'bench',
        description: null,
        status: 'protected',
        station: 'source',
        reversing_to: null,
        source_az: 'az1',
        target_az: 'az2',
        domain: newId(),
        vpc: newId(),
        start_servers: 0,
        next_member: 1,
        failure_detail: null,
        ...times,
      })
      .execute()
    const servers = await tx.selectFrom('servers').select(['id', 'name']).execute()
    for (const [at, { id: server, name }] of servers.entries()) {
      const instance = newId()
      await tx
        .insertInto('protected_instances')
        .values({
          id: instance,
          project,
          group_id: group,
          name,
          description: null,
          status: 'protected',
          source_server: server,
          target_server: newId(),
          spare_port: null,
          failure_detail: null,
          ...times,
        })
        .execute()
      for (const [disk, device] of ['/dev/vda', '/dev/vdb'].entries()) {
        await tx
          .insertInto('replication_pairs')
          .values({
            id: newId(),
            project,
            group_id: group,
            name: `${name}-${disk}`,
            description: null,
            status: 'protected',
            source_volume: newId(),
            target_volume: newId(),
            target_first: 0,
            member: 2 * at + disk + 1,
            in_session: 1,
            added_epoch: 1,
            blank_epoch: null,
            never_replicated: 0,
            progress: 100,
            attachments: JSON.stringify([{ instance, device }]),
            failure_detail: null,
            made_by: instance,
            ...times,
          })
          .execute()
      }
    }
  })
}
