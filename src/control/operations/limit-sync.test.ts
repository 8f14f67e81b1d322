import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import type { Clock } from '#base/clock.ts'
import { Fault } from '#base/fault.ts'
import { newId } from '#base/ids.ts'
import { createLog } from '#base/log.ts'
import { systemClock } from '#base/system/clock.ts'
import { seedResources } from '#control/resources/surroundings.ts'
import { setTypeLimits } from '#control/resources/volume-limits.ts'
import {
  deleteVolumeRow,
  insertVolume,
  moveVolume,
  updateVolume,
} from '#control/resources/volumes.ts'
import type { AgentRegistry } from '#control/sites/agents.ts'
import { SITE_UNREACHABLE, type SiteClient } from '#control/sites/client.ts'
import { openStore } from '#control/store/open.ts'
import type { VolumeLimit } from '#wire/site/commands.ts'
import { createLimitSync } from './limit-sync.ts'

const log = createLog('test', 'silent')
const flat = (base: number) => ({ iops: { base, perGb: 0, max: null }, mibps: null })

/** A database, and two sites that keep limits as agents do. */
async function lab(t: TestContext) {
  const directory = mkdtempSync(join(tmpdir(), 'holdfast-limits-'))
  let ms = 1_000_000
  const clock: Clock & { forward(by: number): void } = {
    ...systemClock,
    bootMs: () => ms,
    wallMs: () => ms,
    forward: (by) => void (ms += by),
  }
  const store = await openStore({ url: `sqlite:${join(directory, 'state.db')}`, clock, log })
  t.after(async () => {
    await store.close()
    rmSync(directory, { recursive: true, force: true })
  })
  await seedResources(store, { region: 'r', sites: ['az1', 'az2'], nowMs: ms })
  /** What the sites hold, by volume; null: the volume is there without a limit. */
  const held = new Map<string, VolumeLimit | null>()
  const silent = new Set<string>()
  let sent = 0
  const command = async (site: string, _: string, request: unknown) => {
    if (silent.has(site)) throw new Fault(SITE_UNREACHABLE, site)
    const unknown: string[] = []
    const newer: { volume: string; revision: number }[] = []
    for (const limit of (request as { limits: VolumeLimit[] }).limits) {
      sent++
      const known = held.get(limit.volume)
      if (known === undefined) unknown.push(limit.volume)
      else if ((known?.revision ?? -1) > limit.revision) {
        newer.push({ volume: limit.volume, revision: known?.revision ?? 0 })
      } else held.set(limit.volume, limit)
    }
    return { unknown, newer }
  }
  const sites = { command, close: async () => {} } as unknown as SiteClient
  const agents = { heard: (site: string) => !silent.has(site) } as unknown as AgentRegistry
  const begin = () => createLimitSync({ store, clock, log, agents, sites })
  const volume = async (az: string, sizeGb = 1) => {
    const id = newId()
    const made = { id, project: 'p', name: null, description: null, sizeGb, type: 'SAS', az }
    const rest = { metadata: {}, bootable: false, multiattach: false, pair: null, user: 'u' }
    await store.write(async (tx) => {
      await insertVolume(tx, { ...made, ...rest }, ms)
      await moveVolume(tx, id, 'available', ms)
    })
    held.set(id, null)
    return id
  }
  const setType = (limits: Parameters<typeof setTypeLimits>[2]) =>
    store.write((tx) => setTypeLimits(tx, 'SAS', limits))
  const sentBy = async (work: () => Promise<void>) => {
    const before = sent
    await work()
    return sent - before
  }
  return { clock, store, held, silent, begin, volume, setType, sentBy }
}

test('a limit of a type reaches its volumes once, follows their size, and is lifted', async (t) => {
  const { begin, volume, setType, held, store, sentBy, clock } = await lab(t)
  const [one, two] = [await volume('az1', 10), await volume('az2', 20)]
  const sync = begin()
  await sync.round()
  await setType({ iops: { base: 100, perGb: 1, max: 115 }, mibps: null })
  assert.equal(await sentBy(() => sync.round()), 2)
  assert.deepEqual([held.get(one)?.iops, held.get(two)?.iops], [110, 115])
  assert.equal(await sentBy(() => sync.round()), 0, 'nothing is new')
  await store.write((tx) => updateVolume(tx, one, { size_gb: 12 }, clock.wallMs()))
  assert.equal(await sentBy(() => sync.round()), 1)
  assert.equal(held.get(one)?.iops, 112)
  await setType({ iops: null, mibps: null })
  await sync.round()
  assert.deepEqual([held.get(one)?.iops, held.get(two)?.iops], [null, null])
  await store.write((tx) => deleteVolumeRow(tx, one))
  assert.equal((await store.db.selectFrom('volume_limits').selectAll().execute()).length, 1)
})

test('a silent site gets its limits when it is heard, and a forgotten one is found within a minute', async (t) => {
  const { begin, volume, setType, held, silent, clock } = await lab(t)
  const id = await volume('az2')
  const sync = begin()
  await sync.round()
  silent.add('az2')
  await setType(flat(50))
  await sync.round()
  assert.equal(held.get(id)?.iops ?? null, null)
  silent.clear()
  await sync.round()
  assert.equal(held.get(id)?.iops, 50)
  // The copy was rebuilt: a new volume of the same name.
  held.set(id, null)
  await sync.round()
  assert.equal(held.get(id), null)
  clock.forward(60_000)
  await sync.round()
  assert.equal(held.get(id)?.iops, 50)
})

test('a database that forgot an order gives one above what the site has', async (t) => {
  const { begin, volume, setType, held, clock, store } = await lab(t)
  const [limited, free] = [await volume('az1'), await volume('az1')]
  const later = { revision: 9_000_000, iops: 7, bytes_per_second: null, read_only: true }
  for (const id of [limited, free]) held.set(id, { volume: id, ...later })
  await setType(flat(30))
  await store.write((tx) => updateVolume(tx, free, { volume_type: 'SSD' }, clock.wallMs()))
  const sync = begin()
  await sync.round()
  assert.equal(held.get(limited)?.iops, 7, 'an older order changes nothing')
  await sync.round()
  assert.deepEqual([held.get(limited)?.iops, held.get(limited)?.read_only], [30, false])
  assert.deepEqual([held.get(free)?.iops, held.get(free)?.read_only], [null, false])
  assert.ok((held.get(free)?.revision ?? 0) > later.revision)
})
