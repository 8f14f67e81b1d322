import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { systemClock } from '#base/system/clock.ts'
import { isFault } from '#base/fault.ts'
import type { NbdClient } from '#client/nbd/client.ts'
import { setTypeLimits } from '#control/resources/volume-limits.ts'
import type { TypeRate } from '#domain/volume-type.ts'
import { Region } from '../support/region.ts'

/** What types of volumes are limited to, from the API down to what an NBD client gets out of real agents. */
let region: Region
before(async () => {
  region = await Region.start()
})
after(async () => await region.stop())

const BLOCK = 4_096
const MIB = 1_048_576

const flat = (base: number): TypeRate => ({ base, perGb: 0, max: null })

const setType = async (name: string, iops: TypeRate | null, mibps: TypeRate | null) =>
  assert.ok(await region.plane.store.write((tx) => setTypeLimits(tx, name, { iops, mibps })))

/** Requests per second of a client that always has `depth` of them out, after the burst is used up. */
async function rateOf(
  client: NbdClient,
  { ms, depth, bytes = BLOCK }: { ms: number; depth: number; bytes?: number },
): Promise<number> {
  const data = Buffer.alloc(bytes, 7)
  let done = 0
  let stop = false
  const writer = async (slot: number) => {
    for (let n = 0; !stop; n++) {
      await client.write(((slot + n * depth) % 256) * bytes, data)
      done++
    }
  }
  const writers = Array.from({ length: depth }, (_, slot) => writer(slot))
  // Whatever was saved up is gone when the first requests had to wait.
  await new Promise<void>((resolve) => systemClock.after(250, resolve))
  const [from, fromMs] = [done, systemClock.bootMs()]
  await new Promise<void>((resolve) => systemClock.after(ms, resolve))
  const rate = ((done - from) * 1_000) / (systemClock.bootMs() - fromMs)
  stop = true
  await Promise.all(writers)
  return rate
}

const near = (measured: number, wanted: number, what: string): void =>
  assert.ok(Math.abs(measured - wanted) <= wanted * 0.1, `${what}: ${measured} of ${wanted}`)

async function retype(id: string, type: string): Promise<void> {
  const path = `/v2/{project}/volumes/${id}/retype`
  const { job_id } = await region.ok('POST', path, { 'os-retype': { new_type: type } }, 202)
  await region.plane.operations.waitFor(job_id)
  const job = await region.ok('GET', `/v1/{project}/jobs/${job_id}`)
  assert.equal(job.status, 'SUCCESS', JSON.stringify(job))
}

test('a client gets what the type of its volume allows, live: set, retyped, grown, lifted', async () => {
  await setType('SATA', { base: 100, perGb: 100, max: null }, null)
  await setType('SAS', flat(1_000), flat(2))
  const id = await region.volume('limited', 1, 'az1', 'SATA')
  const client = await region.nbd('az1', id)
  near(await rateOf(client, { ms: 1_000, depth: 16 }), 200, 'operations at 1 GB')

  const extend = { 'os-extend': { new_size: 3 } }
  await region.call('POST', `/v2/{project}/volumes/${id}/action`, extend)
  await region.until('the site has the limit of the larger disk', async () => {
    const row = await region.plane.store.db
      .selectFrom('volume_limits')
      .select('iops')
      .where('volume', '=', id)
      .executeTakeFirst()
    return row?.iops === 400
  })
  await retype(id, 'SAS')
  const bytes = 65_536
  near(await rateOf(client, { ms: 1_000, depth: 8, bytes }), (2 * MIB) / bytes, 'bytes')
  near(await rateOf(client, { ms: 1_000, depth: 32, bytes: 512 }), 1_000, 'operations')

  await setType('SAS', null, null)
  await region.until('the limit is gone', async () => {
    return (await rateOf(client, { ms: 200, depth: 32 })) > 2_000
  })
  await client.disconnect()
  await setType('SATA', null, null)
})

test('the limit holds at whichever site writes, and through a restart of its agent', async () => {
  await setType('SATA', flat(300), null)
  const volume = await region.volume('both', 1, 'az1', 'SATA')
  const group = await region.group('both')
  const pair = await region.pair(group, volume, 'both')
  await region.act(group, 'start-server-group')
  await region.inSync(pair)
  const [production, other] = [await region.nbd('az1', pair), await region.nbd('az1', volume)]
  const rates = await Promise.all(
    [production, other].map((client) => rateOf(client, { ms: 1_000, depth: 8 })),
  )
  near((rates[0] ?? 0) + (rates[1] ?? 0), 300, 'both names of one volume together')
  await production.disconnect()
  await other.disconnect()
  await region.until('the DR side has it', async () => {
    const rows = await region.plane.store.db
      .selectFrom('volume_limits')
      .innerJoin('volumes', 'volumes.id', 'volume_limits.volume')
      .select('volumes.az')
      .where('volumes.pair', '=', pair)
      .execute()
    return rows.length === 2
  })
  await region.act(group, 'reverse-server-group', { priority_station: 'target' })
  const reversed = await region.nbd('az2', pair)
  near(await rateOf(reversed, { ms: 1_000, depth: 8 }), 300, 'after the roles were switched')
  await reversed.disconnect()

  const single = await region.volume('restarted', 1, 'az2', 'SATA')
  await region.stopSite('az2')
  await region.startSite('az2')
  const again = await region.nbd('az2', single)
  near(await rateOf(again, { ms: 1_000, depth: 8 }), 300, 'after a restart')
  await again.disconnect()
  await setType('SATA', null, null)
})

test('a disk that is set read-only refuses changes and is read, until it is set back', async () => {
  const id = await region.volume('still', 1, 'az1', 'SSD')
  const client = await region.nbd('az1', id)
  await client.write(0, Buffer.alloc(BLOCK, 1))
  const path = `/v2/{project}/volumes/${id}`
  const set = async (readonly: boolean) => {
    const body = { 'os-update_readonly_flag': { readonly } }
    assert.equal((await region.call('POST', `${path}/action`, body)).status, 202)
  }
  const takes = (writer = client) =>
    writer.write(0, Buffer.alloc(BLOCK, 2)).then(
      () => true,
      (error: unknown) => {
        assert.ok(isFault(error), String(error))
        return false
      },
    )
  await set(true)
  await region.until('writes are refused', async () => !(await takes()))
  assert.equal((await region.ok('GET', path)).volume.metadata.readonly, 'True')
  const held = (await client.read(0, 1))[0]
  assert.equal(await takes(), false)
  assert.equal((await client.read(0, 1))[0], held)

  // What was said before it was paired holds at the other site, which replication writes all the same.
  const group = await region.group('still')
  const pair = await region.pair(group, id, 'still')
  await region.act(group, 'start-server-group')
  await region.inSync(pair)
  await region.act(group, 'reverse-server-group', { priority_station: 'target' })
  const reversed = await region.nbd('az2', pair)
  assert.equal((await reversed.read(0, 1))[0], held)
  // The site was told when the pair was made.
  assert.equal(await takes(reversed), false)
  await reversed.disconnect()
  await region.inSync(pair)
  await region.act(group, 'stop-server-group')
  await region.job('DELETE', `/v1/{project}/replications/${pair}`, {})

  await set(false)
  const again = await region.nbd('az1', id)
  await region.until('it may be written again', () => takes(again))
  await again.disconnect()
})
