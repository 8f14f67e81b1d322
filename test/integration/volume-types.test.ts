import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { ApiLab } from '../support/api.ts'
import { commandLine } from '../support/command-line.ts'

/** Limits of volume types over our own API and on the command line. What they do to a client is in volume-limits.test.ts. */
let lab: ApiLab
let admin: string
before(async () => {
  lab = await ApiLab.start()
  admin = await lab.adminToken()
})
after(async () => await lab.stop())

const TYPES = '/api/v1/volume-types'
const UNLIMITED = { iops: null, mib_per_second: null }
const put = (name: string, body: unknown, token = admin) =>
  lab.call({ method: 'PUT', url: `${TYPES}/${name}`, headers: { 'x-auth-token': token }, body })
const typeOf = async (name: string, token = admin) => {
  const { body } = await lab.call({ url: TYPES, headers: { 'x-auth-token': token } })
  const types = body.volume_types as { name: string; limits: object; usual: object }[]
  assert.deepEqual(
    types.map((one) => one.name),
    ['SATA', 'SAS', 'GPSSD', 'SSD', 'ESSD'],
  )
  return types.find((one) => one.name === name)
}

test('nothing is limited at first, administrators limit a type, and everybody sees it', async () => {
  assert.deepEqual((await typeOf('SSD'))?.limits, UNLIMITED)
  const limits = {
    iops: { base: 100, per_gb: 1.5, max: 5_000 },
    mib_per_second: { base: 10, per_gb: 0, max: null },
  }
  const { status, body } = await put('SSD', limits)
  assert.deepEqual([status, body.limits], [200, limits])
  const reader = await lab.userWith('reader', lab.admin.project_id)
  assert.deepEqual((await typeOf('SSD', reader.token))?.limits, limits)
  assert.deepEqual((await typeOf('SAS'))?.limits, UNLIMITED)
  assert.equal((await put('SSD', UNLIMITED)).status, 200)
  assert.deepEqual((await typeOf('SSD'))?.limits, UNLIMITED)
})

test('who may not, what is no limit, and a limit of nothing are refused', async () => {
  const operator = await lab.userWith('operator', lab.admin.project_id)
  const rate = (base: unknown, per_gb: unknown = 0, max: unknown = null) => ({
    iops: { base, per_gb, max },
    mib_per_second: null,
  })
  for (const [status, reply] of [
    [403, await put('SSD', UNLIMITED, operator.token)],
    [404, await put('TAPE', UNLIMITED)],
    [409, await put('SSD', rate(0))],
    [400, await put('SSD', rate(-1))],
    [400, await put('SSD', rate('many'))],
    [400, await put('SSD', rate(1, 1, 0))],
    [400, await put('SSD', rate(10_000_001))],
    [400, await put('SSD', { iops: null })],
    [400, await put('SSD', undefined)],
  ] as const) {
    assert.equal(reply.status, status, JSON.stringify(reply.body))
  }
  assert.deepEqual((await typeOf('SSD'))?.limits, UNLIMITED)
})

test('the command line sets limits as a rate with growth and a most, as usual, or lifts them', async () => {
  const origin = await lab.listen()
  const run = (...args: string[]) => commandLine(lab, origin, ['volume-type', ...args])
  const set = await run('set', 'SAS', '--iops', '1800+8/GB,max=5000', '--mibps', '100.5')
  assert.match(set.out, /SAS +1800\+8\/GB,max=5000 +100\.5/, set.err)
  assert.equal((await run('set', 'SATA', '--usual')).code, 0)
  const { limits, usual } = (await typeOf('SATA')) ?? {}
  assert.deepEqual(limits, usual)
  await run('set', 'SAS', '--iops', 'none')
  assert.match((await run('list')).out, /SAS +unlimited +100\.5/)
  assert.match((await run('set', 'SAS', '--iops', 'fast')).err, /BASE\+PER\/GB/)
  assert.match((await run('set', 'SAS')).err, /--usual/)
  assert.match((await run('set', 'TAPE', '--usual')).err, /no type TAPE/)
  await run('set', 'SAS', '--unlimited')
  assert.deepEqual((await typeOf('SAS'))?.limits, UNLIMITED)
})
