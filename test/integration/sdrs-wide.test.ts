/** A group as wide as groups get: 256 pairs through every operation, on real agents. */
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { Region, type Reply } from '../support/region.ts'

const PAIRS = 256

let region: Region
before(async () => {
  region = await Region.start()
})
after(async () => await region.stop())

/** Submits all, waits for the end of each, and demands success. */
async function jobs(calls: readonly (readonly [string, string, unknown?])[]): Promise<void> {
  const submitted: string[] = []
  for (const [method, path, body] of calls) {
    submitted.push((await region.ok(method, path, body)).job_id as string)
  }
  for (const id of submitted) {
    const { status, failReason } = await region.plane.operations.waitFor(id)
    assert.equal(status, 'succeeded', String(failReason))
  }
}

const listed = async (group: string): Promise<Reply['body'][]> =>
  (await region.ok('GET', `/v1/{project}/replications?server_group_id=${group}`)).replications

const all = async (group: string, member: string): Promise<string[]> => [
  ...new Set((await listed(group)).map((pair) => String(pair[member]))),
]

const inSync = async (group: string): Promise<void> =>
  await region.until(
    'every pair is in sync',
    async () => {
      const [status, ...more] = await all(group, 'replication_status')
      return status === 'active' && more.length === 0
    },
    60_000,
  )

test('256 pairs are protected, switched, failed over, protected again, stopped and deleted as one group', async (t) => {
  const took = async (what: string, work: () => Promise<unknown>): Promise<void> => {
    const startMs = performance.now()
    await work()
    t.diagnostic(`${what}: ${Math.round(performance.now() - startMs)} ms`)
  }
  const group = await region.group('wide')
  const volumes: string[] = []
  await took('256 disks', async () => {
    for (let at = 0; at < PAIRS; at++) {
      const { volume } = await region.ok(
        'POST',
        '/v2/{project}/volumes',
        { volume: { name: `d${at}`, size: 1, availability_zone: 'az1', volume_type: 'SSD' } },
        202,
      )
      volumes.push(volume.id as string)
    }
    await region.until(
      'every disk is made',
      async () => {
        const { count } = await region.plane.store.db
          .selectFrom('volumes')
          .select((eb) => eb.fn.countAll<number>().as('count'))
          .where('status', '=', 'available')
          .executeTakeFirstOrThrow()
        return Number(count) === PAIRS
      },
      60_000,
    )
  })
  await took('256 pairs', () =>
    jobs(
      volumes.map((volume_id, at) => [
        'POST',
        '/v1/{project}/replications',
        { replication: { server_group_id: group, volume_id, name: `p${at}` } },
      ]),
    ),
  )
  const pairs = await listed(group)
  assert.equal(pairs.length, PAIRS)
  const [first, last] = [pairs[0], pairs.at(-1)]
  const names = [first.id, last.id] as string[]

  await took('start', () => region.act(group, 'start-server-group'))
  await inSync(group)
  for (const name of names) await region.write('az1', name, `one ${name}`)

  await took('reverse', () =>
    region.act(group, 'reverse-server-group', { priority_station: 'target' }),
  )
  assert.deepEqual(await all(group, 'priority_station'), ['target'])
  await inSync(group)
  for (const name of names) assert.equal(await region.read('az2', name), `one ${name}`)
  for (const name of names) await region.write('az2', name, `two ${name}`)

  await took('failover', () => region.act(group, 'failover-server-group'))
  assert.deepEqual(await all(group, 'status'), ['failed-over'])
  for (const name of names) assert.equal(await region.read('az1', name), `two ${name}`)
  let job: Reply['body']
  await took('reprotect', async () => {
    job = await region.act(group, 'start-server-group')
  })
  assert.equal(job.job_type, 'reprotectProtectionGroupNoCG')
  assert.equal(job.entities.sub_jobs.length, PAIRS)
  await inSync(group)
  assert.equal((await region.show(group)).progress, 100)

  // What is in no session goes quickly; pairs that leave a running one are in sdrs-life.test.ts.
  await took('stop', () => region.act(group, 'stop-server-group'))
  assert.deepEqual(await all(group, 'status'), ['available'])
  await took('256 deletions', () =>
    jobs(pairs.map(({ id }) => ['DELETE', `/v1/{project}/replications/${id}`])),
  )
  await took('delete', () => region.job('DELETE', `/v1/{project}/server-groups/${group}`))
})
