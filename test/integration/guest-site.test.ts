/** Real guests at real agents: what protection, a switch of sites and the end of an agent do to them. */
import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { isFault } from '#base/fault.ts'
import { processesWithArgumentPrefix } from '#base/system/process.ts'
import type { CommandAnswer, CommandName, CommandRequest } from '#wire/site/commands.ts'
import type { ServerInfo } from '#wire/site/servers.ts'
import { definitionOf, NO_QEMU } from '../support/guest-lab.ts'
import { Region } from '../support/region.ts'
import { tinyGuest } from '../support/tiny-guest.ts'

const SERVER = '5eae5e00-0000-4000-8000-00000000000a'
const AT_DR = '5eae5e00-0000-4000-8000-00000000000b'

let region: Region
before(async () => {
  if (NO_QEMU === false) region = await Region.start({ agent: { qemuAccelerator: 'tcg' } })
})
after(async () => {
  if (NO_QEMU !== false) return
  for (const [site, server] of [
    ['az1', SERVER],
    ['az2', AT_DR],
  ] as const) {
    await command(site, 'server.remove', { server })
    assert.deepEqual(await pids(site), [])
  }
  await region.stop()
})

async function command<N extends CommandName>(
  site: string,
  name: N,
  request: CommandRequest<N>,
): Promise<CommandAnswer<N>> {
  return await region.plane.sites.command(site, name, request)
}
const show = async (site: string, server: string): Promise<ServerInfo> =>
  await command(site, 'server.show', { server })
const runDir = (site: string) => join(region.directory, site, 'run')
const pids = async (site: string) =>
  (await processesWithArgumentPrefix(join(runDir(site), `${site}-guest-`))).map(
    ({ facts }) => facts.pid,
  )
const define = async (site: string, server: string, generation: number, volumes: string[]) =>
  await command(site, 'server.define', {
    definition: definitionOf(
      server,
      volumes.map((volume, index) => ({
        volume,
        device: `/dev/vd${'ab'[index]}`,
        boot_index: index === 0 ? 0 : null,
      })),
      { generation },
    ),
  })

test('a guest runs through the start of its protection and dies with the switch to the other site, where another one goes on', {
  skip: NO_QEMU,
}, async () => {
  const volume = await region.volume('root')
  const nbd = await region.nbd('az1', volume)
  await nbd.write(0, tinyGuest({ counts: true, obeys: true, releases: true }), { fua: true })
  await nbd.disconnect()
  const second = await region.volume('second')

  await define('az1', SERVER, 1, [volume])
  assert.equal((await command('az1', 'server.start', { server: SERVER })).power, 'running')
  const [pid] = await pids('az1')
  const count = async (site: string, name: string) => {
    const client = await region.nbd(site, name)
    const sector = await client.read(512, 512)
    await client.disconnect()
    return sector.readUInt32LE(0)
  }
  await region.until('it counts', async () => (await count('az1', volume)) > 0)

  const group = await region.group()
  const pair = await region.pair(group, volume)
  const target = (await region.showPair(pair)).volume_ids.split(',')[1] as string
  await region.act(group, 'start-server-group')
  await region.inSync(pair)
  assert.deepEqual(await pids('az1'), [pid], 'the same guest as before')

  const plugged = await define('az1', SERVER, 2, [volume, second])
  assert.deepEqual(
    plugged.disks.map(({ device }) => device),
    ['/dev/vda', '/dev/vdb'],
  )
  await define('az1', SERVER, 3, [volume])
  await region.until('it released the disk', async () => {
    const { releasing, disks } = await show('az1', SERVER)
    return releasing.length === 0 && disks.length === 1
  })

  // The site that may not write starts nothing.
  await define('az2', AT_DR, 1, [target])
  await assert.rejects(command('az2', 'server.start', { server: AT_DR }), (error) => {
    assert.ok(isFault(error))
    assert.equal(error.detail['refusal'], 'NOT_SERVED')
    return true
  })

  const counted = await count('az1', volume)
  await region.act(group, 'reverse-server-group', { priority_station: 'target' })
  await region.until('the guest is gone', async () => (await pids('az1')).length === 0, 5_000)
  const fenced = await show('az1', SERVER)
  assert.equal(fenced.power, 'off')
  assert.match(fenced.reason ?? '', /may not be used here any more/)
  await assert.rejects(command('az1', 'server.start', { server: SERVER }))
  assert.equal((await command('az2', 'server.start', { server: AT_DR })).power, 'running')
  await region.until('it counts on', async () => (await count('az2', target)) > counted)
})

test('a guest is left by an agent that stops, and taken over by the next one; every report says so', {
  skip: NO_QEMU,
}, async () => {
  const before = await pids('az2')
  assert.equal(before.length, 1)
  await region.stopSite('az2')
  assert.deepEqual(await pids('az2'), before)
  await region.startSite('az2')
  await region.until('az2 reports its guest', async () => {
    const report = region.plane.agents.at('az2')?.report
    const brief = report?.servers?.find(({ server }) => server === AT_DR)
    return brief?.power === 'running' && report?.compute?.driver === 'qemu'
  })
  assert.deepEqual(await pids('az2'), before)
  const report = region.plane.agents.at('az2')?.report
  assert.equal(report?.compute?.memory_used_mb, 96)
  const off = await command('az2', 'server.stop', { server: AT_DR, hard: true, grace_ms: 0 })
  assert.equal(off.power, 'off')
})

test('nothing is left of a removed server', { skip: NO_QEMU }, async () => {
  await command('az2', 'server.remove', { server: AT_DR })
  assert.deepEqual(await readdir(runDir('az2')), [])
  assert.equal(existsSync(join(region.directory, 'az2', 'servers', AT_DR)), false)
})
