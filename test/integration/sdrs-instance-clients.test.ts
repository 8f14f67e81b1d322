/**
 * The request sequences of Go helpers and Terraform providers around protected instances, decoded as strictly as Go decodes them, and held
 * against the contract.
 */
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { type GoType, assertGo } from '../support/go-types.ts'
import { GROUPS, INSTANCES, instanceLab } from '../support/instance-lab.ts'
import type { Region, Reply } from '../support/region.ts'

const kit = instanceLab()
const { server, power, dropServers } = kit
let region: Region

before(async () => {
  ;({ region } = await kit.start())
})
after(async () => await region.stop())

const list = (of: GoType): GoType => ({ list: of })
const texts: GoType = { map: 'string' }
const TAGS = list({ struct: { key: 'string', value: 'string' } })
const fields = {
  id: 'string',
  name: 'string',
  description: 'string',
  server_group_id: 'string',
  status: 'string',
  progress: 'int',
  source_server: 'string',
  target_server: 'string',
  priority_station: 'string',
  attachment: list({ struct: { replication: 'string', device: 'string' } }),
  tags: TAGS,
  metadata: texts,
} as const
const INSTANCE: GoType = { struct: { ...fields, created_at: 'string', updated_at: 'string' } }
const JOB: GoType = {
  struct: {
    job_id: 'string',
    job_type: 'string',
    status: 'string',
    begin_time: 'time',
    end_time: 'time',
    error_code: 'string',
    fail_reason: 'string',
    entities: texts,
  },
}
const FOUND: GoType = {
  struct: {
    total_count: 'int',
    resources: list({
      struct: {
        resource_id: 'string',
        resource_name: 'string',
        // The one client that reads these declares whole numbers.
        resource_detail: { struct: { ...fields, created_at: 'int', updated_at: 'int' } },
        tags: TAGS,
      },
    }),
  },
}

/** Waits as clients do: by reading the job until it has ended, and once more for its result. */
async function job(method: string, path: string, body?: unknown): Promise<Reply['body']> {
  const { job_id } = await region.ok(method, path, body)
  await region.plane.operations.waitFor(job_id as string)
  const read = await region.ok('GET', `/v1/{project}/jobs/${job_id}`)
  assert.equal(read.status, 'SUCCESS', JSON.stringify(read))
  return read
}

/** A job that a client decodes as a map of text. */
async function flatJob(method: string, path: string, body?: unknown): Promise<Reply['body']> {
  const read = await job(method, path, body)
  assertGo(JOB, read)
  return read
}

async function show(id: string): Promise<Reply['body']> {
  const { protected_instance: shown } = await region.ok('GET', `${INSTANCES}/${id}`)
  assertGo(INSTANCE, shown)
  return shown
}

test('a group, its instances, their pairs and tags are made, read and deleted as providers do it', async () => {
  const [one, two] = [await server('one'), await server('two')]
  const { domains } = await region.ok('GET', '/v1/{project}/active-domains')
  const made = await job('POST', GROUPS, {
    server_group: {
      name: 'tf',
      description: 'made by a provider',
      source_availability_zone: 'az1',
      target_availability_zone: 'az2',
      domain_id: domains[0].id,
      source_vpc_id: region.vpc,
      dr_type: 'migration',
      server_type: 'ECS',
    },
  })
  const group = made.entities.server_group_id as string
  const ids: string[] = []
  for (const machine of [one, two]) {
    const created = await flatJob('POST', INSTANCES, {
      protected_instance: {
        server_group_id: group,
        server_id: machine.id,
        name: `instance-${machine.name}`,
        description: 'd',
        cluster_id: '',
        primary_subnet_id: '',
        primary_ip_address: '',
        tenancy: 'shared',
      },
    })
    ids.push(created.entities.protected_instance_id)
  }
  const [first = '', second = ''] = ids
  // Protection is switched on, and the very next read has to say so.
  await job('POST', `${GROUPS}/${group}/action`, { 'start-server-group': {} })
  assert.equal((await region.show(group)).status, 'protected')
  assert.equal((await show(first)).status, 'protected')

  // Tags are written after the creation; a change takes all away and writes all anew.
  const tags = (action: string, ...keys: string[]) => ({
    action,
    tags: keys.map((key) => ({ key, value: 'v' })),
  })
  const action = `${INSTANCES}/${first}/tags/action`
  await region.ok('POST', action, tags('create', 'a', 'b'), 204)
  await region.ok('POST', action, tags('delete', 'a', 'b'), 204)
  await region.ok('POST', action, tags('create', 'c'), 204)
  const read = await region.ok('GET', `${INSTANCES}/${first}/tags`)
  assertGo({ struct: { tags: TAGS } }, read)
  assert.deepEqual((await show(first)).tags, read.tags)

  // An attachment is found through its instance.
  const pairJob = await flatJob('POST', '/v1/{project}/replications', {
    replication: {
      server_group_id: group,
      volume_id: await region.volume('data'),
      name: 'pair',
      description: '',
    },
  })
  const pair = pairJob.entities.replication_pair_id as string
  await flatJob('POST', `${INSTANCES}/${first}/attachreplication`, {
    replicationAttachment: { replication_id: pair, device: '/dev/vdb' },
  })
  const attached = (await show(first)).attachment.find(
    (found: { replication: string }) => found.replication === pair,
  )
  assert.equal(attached.device, '/dev/vdb')

  // Lists are read in one request without a limit, or row by row until a page is empty.
  const { protected_instances: all } = await region.ok(
    'GET',
    `${INSTANCES}?server_group_id=${group}`,
  )
  assertGo(list(INSTANCE), all)
  const walked: string[] = []
  for (;;) {
    const page = await region.ok('GET', `${INSTANCES}?limit=1&offset=${walked.length}`)
    if (page.protected_instances.length === 0) break
    walked.push(page.protected_instances[0].id)
  }
  assert.deepEqual(walked.toSorted(), ids.toSorted())
  const query = `${INSTANCES}/resource_instances/action`
  const found = await region.ok('POST', query, {
    action: 'filter',
    offset: 0,
    tags: [{ key: 'c', values: ['v'] }],
  })
  assertGo(FOUND, found)
  assert.equal(found.resources[0].resource_id, first)

  const nic = await flatJob('POST', `${INSTANCES}/${second}/nic`, {
    subnet_id: (await region.ok('GET', '/v1/{project}/subnets')).subnets[0].id,
  })
  assert.ok(nic.entities.nic_id)
  await flatJob('POST', `${INSTANCES}/${second}/nic/delete`, { nic_id: nic.entities.nic_id })
  assert.equal(await power(two.id, 'stop'), null)
  await flatJob('POST', `${INSTANCES}/${second}/resize`, {
    resize: { production_flavorRef: 't2.small' },
  })

  await flatJob('DELETE', `${INSTANCES}/${first}/detachreplication/${pair}`)
  await flatJob('DELETE', `/v1/{project}/replications/${pair}`, {
    replication: { server_group_id: group, delete_target_volume: true },
  })
  // Both flags always, the automatic pairs untouched; then the group, which has to be empty.
  for (const id of ids) {
    await flatJob('DELETE', `${INSTANCES}/${id}`, {
      delete_target_server: true,
      delete_target_eip: true,
    })
    assert.equal((await region.call('GET', `${INSTANCES}/${id}`)).status, 404)
  }
  await job('DELETE', `${GROUPS}/${group}`)
  await dropServers(one.id, two.id)
})
