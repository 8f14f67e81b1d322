/**
 * A group fails over by itself, on three machines of real processes in network namespaces: when its production site is lost, and then only.
 */
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { sleep } from '#base/clock.ts'
import { systemClock } from '#base/system/clock.ts'
import { connectNbd, type NbdClient } from '#client/nbd/client.ts'
import {
  type AutomaticFailover,
  changeAutomaticFailover,
  rearmAutomaticFailover,
  showAutomaticFailover,
} from '#client/recovery.ts'
import { showGroup } from '#client/sdrs.ts'
import { Events } from '../torture/events.ts'
import { Lab, type Site } from '../torture/lab/lab.ts'
import { whyNot } from '../torture/needs.ts'
import { Operator } from '../torture/operator.ts'

const reason = await whyNot()
const skip = reason === undefined ? false : `machines of their own do not run here: ${reason}`
const LIMIT_MS = 40_000

let lab: Lab
let operator: Operator
let group: string
let pair: string
let bearing: (site: Site) => string

before(async () => {
  if (skip !== false) return
  lab = await Lab.start({ keep: false, onDeath: () => {}, disks: 'small', seed: 1 })
  operator = new Operator({
    clock: systemClock,
    api: lab.api,
    events: new Events(systemClock, () => {}),
  })
  const made = await operator.setUp(1)
  group = made.group
  const [first] = made.pairs
  assert.ok(first !== undefined)
  pair = first.id
  bearing = (site) => lab.socketOf(site)
  await changeAutomaticFailover(lab.api, group, { enabled: true, silence_s: 1, cool_down_s: 1 })
})
after(async () => {
  if (skip === false) await lab.close()
})

async function until<T>(what: string, look: () => Promise<T | null>): Promise<T> {
  const endMs = systemClock.bootMs() + LIMIT_MS
  for (;;) {
    const found = await look()
    if (found !== null) return found
    assert.ok(systemClock.bootMs() < endMs, `${what}: not within ${LIMIT_MS} ms`)
    await sleep(systemClock, 100)
  }
}

const shown = () => showAutomaticFailover(lab.api, group, 100)
const codes = ({ reasons }: AutomaticFailover) => reasons.map(({ code }) => code)

/** The verdict of the last look has this reason. */
const says = async (code: string) =>
  await until(`it says ${code}`, async () => {
    const now = await shown()
    return codes(now).includes(code) ? now : null
  })
const standsBy = async () =>
  await until('it stands by', async () => {
    const now = await shown()
    return now.verdict === 'stands_by' ? now : null
  })

/** Writes a number durably; how far an acknowledged counter came is what must survive. */
async function count(client: NbdClient, number: number): Promise<void> {
  await client.write(4096, Buffer.from(String(number).padEnd(512)), { fua: true })
}
const open = async (site: Site) =>
  await until(`${site} serves`, async () => {
    try {
      return await connectNbd({ unix: bearing(site) }, { exportName: pair })
    } catch {
      return null
    }
  })

test('what is not a lost production site moves nothing, and says why; a lost one fails over with every acknowledged write', {
  skip,
}, async () => {
  const { network, parts } = lab
  await standsBy()
  let client = await open('az1')
  await count(client, 1)

  // The sites lose each other; the control plane hears both.
  await network.cut('az1', 'az2')
  await network.cut('az2', 'az1')
  const alone = await says('NOT_IN_SYNC')
  assert.equal(alone.verdict, 'refuses')
  assert.ok(codes(alone).includes('PRODUCTION_HEARD'))
  await count(client, 2)
  await network.mendAll()
  await standsBy()

  // The control plane loses production; the DR site hears it.
  await network.cut('az1', 'ctl')
  await network.cut('ctl', 'az1')
  const heardByPeer = await says('DR_HEARS_PRODUCTION')
  assert.equal(heardByPeer.verdict, 'refuses')
  await count(client, 3)
  await network.mendAll()
  await standsBy()

  // An operator holds it back, for what is going to be a maintenance.
  await changeAutomaticFailover(lab.api, group, { hold: 'maintenance of az1' })
  assert.equal((await says('HELD')).verdict, 'refuses')
  await changeAutomaticFailover(lab.api, group, { hold: null })
  await standsBy()
  await count(client, 4)
  await client.disconnect()
  const before = await shown()
  assert.equal(before.history.filter(({ verdict }) => verdict === 'acts').length, 0)
  assert.equal((await showGroup(lab.api, group)).status, 'protected')

  // Production is lost, and the control plane dies before it has listened for long enough: the next one begins anew.
  await parts.az1.kill()
  await says('SILENCE_TOO_SHORT')
  await parts.ctl.kill()
  const restartedMs = systemClock.wallMs()
  await parts.ctl.start()
  const acted = await until('it acted', async () => {
    const now = await shown().catch(() => null)
    return now?.acted_at === null || now === null ? null : now
  })
  // Lease, drift and silence of the control plane's own configuration.
  assert.ok(Date.parse(acted.acted_at ?? '') - restartedMs >= 4_650, acted.acted_at ?? '')
  assert.equal(acted.armed, false)
  const act = acted.history.find(({ verdict }) => verdict === 'acts')
  assert.equal(act?.operation, acted.operation)
  await until('it has failed over', async () => {
    const { status } = await showGroup(lab.api, group)
    assert.notEqual(status, 'error-failing-over')
    return status === 'failed-over' ? true : null
  })
  client = await open('az2')
  assert.equal(Number((await client.read(4096, 512)).toString()), 4)
  await client.disconnect()

  // Once is enough until somebody has looked at it.
  assert.equal((await says('NOT_ARMED')).verdict, 'refuses')
  await sleep(
    systemClock,
    Math.max(0, Date.parse(acted.acted_at ?? '') + 1_000 - systemClock.wallMs()),
  )
  assert.equal((await rearmAutomaticFailover(lab.api, group)).armed, true)
})
