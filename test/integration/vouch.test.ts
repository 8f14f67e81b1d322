import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { newId } from '#base/ids.ts'
import { ApiLab } from '../support/api.ts'

/** An operator vouches for an ownership record that the witness does not trust. */
let lab: ApiLab
const group = '4f0f0b0e-2a52-4b0b-8a70-5d5ab45a3c11'
before(async () => {
  lab = await ApiLab.start()
  const now = lab.clock.wallMs()
  await lab.store.write(async (tx) => {
    await tx
      .insertInto('protection_groups')
      .values({
        id: group,
        project: lab.admin.project_id,
        form: 'sdrs',
        name: 'group',
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
        created_at: now,
        updated_at: now,
      })
      .execute()
  })
})
after(async () => await lab.stop())

async function vouch(token: string, body: object, id = group) {
  const headers = { 'x-auth-token': token }
  const reply = await lab.call({ method: 'POST', url: `/api/v1/groups/${id}/vouch`, headers, body })
  return [reply.status, reply.body?.error?.code] as const
}

test('only an administrator vouches, only for a group with a record, and naming one of its sites that is silent', async () => {
  const admin = await lab.adminToken()
  const operator = await lab.userWith('operator', lab.admin.project_id)
  const off = { site_off: 'az1' }
  assert.deepEqual(await vouch(operator.token, off), [403, 'FORBIDDEN'])
  assert.deepEqual(await vouch(admin, off, newId()), [404, 'GROUP_UNKNOWN'])
  assert.deepEqual(await vouch(admin, {}), [400, 'INVALID_INPUT'])
  assert.deepEqual(await vouch(admin, { site_off: 'az9' }), [409, 'SITE_NOT_OF_GROUP'])
  assert.deepEqual(await vouch(admin, off), [409, 'GROUP_NEVER_STARTED'])

  await lab.store.write(async (tx) => {
    await tx
      .insertInto('ownership')
      .values({
        session: group,
        epoch: 3,
        state: 'in_sync',
        writer: 'az1',
        replica: 'az2',
        mode: 'witness',
        preferred: 'az1',
        incarnation: newId(),
        attempt: 'an-attempt',
        lease_holder: null,
        lease_ends_boot_ms: null,
        lease_boot_id: null,
        lease_ms: null,
        alone: null,
        serial: 3,
        history_mark: 'of another history',
        heard: '{}',
        updated_at: 0,
      })
      .execute()
  })
  const show = async () => {
    const headers = { 'x-auth-token': admin }
    const { body } = await lab.call({ url: `/api/v1/groups/${group}`, headers })
    return body.group.record as { epoch: number; trusted: boolean }
  }
  assert.equal((await show()).trusted, false)
  assert.deepEqual(await vouch(admin, off), [200, undefined])
  const { epoch, trusted } = await show()
  assert.deepEqual([epoch > 3, trusted], [true, true], 'above all that may have been lost')
  const audit = await lab.store.db
    .selectFrom('audit')
    .select(['action', 'target', 'result'])
    .where('action', '=', 'group.vouch')
    .where('result', '=', 200)
    .execute()
  assert.deepEqual(audit, [{ action: 'group.vouch', target: group, result: 200 }])
})

test('preflight, arbitration and history of a group are shown to its project only', async () => {
  const admin = await lab.adminToken()
  const get = async (path: string, id = group) => {
    const headers = { 'x-auth-token': admin }
    return await lab.call({ url: `/api/v1/groups/${id}/${path}`, headers })
  }
  const { preflight } = (await get('preflight?action=failover&force=true')).body
  assert.deepEqual(
    [preflight.accepted, preflight.refusal.code, preflight.needs],
    [false, 'GROUP_WITHOUT_PAIRS', []],
  )
  assert.equal(preflight.given_up.kind, 'nothing')
  assert.equal((await get('preflight?action=explode')).status, 400)
  const { arbitration } = (await get('arbitration')).body
  assert.deepEqual(arbitration, { mode: 'witness', preferred: 'az1' })
  const { changes } = (await get('history?limit=1')).body
  assert.deepEqual([changes.length, changes[0].kind, changes[0].epoch > 3], [1, 'adopt', true])
  for (const path of ['preflight?action=start', 'arbitration', 'history']) {
    assert.equal((await get(path, newId())).status, 404, path)
  }
  const put = async (body: object) => {
    const headers = { 'x-auth-token': admin }
    const url = `/api/v1/groups/${group}/arbitration`
    const reply = await lab.call({ method: 'PUT', url, headers, body })
    return [reply.status, reply.body?.error?.code ?? reply.body.arbitration.mode] as const
  }
  assert.deepEqual(await put({ mode: 'coin' }), [400, 'INVALID_INPUT'])
  const foreign = { mode: 'static-priority', preferred: 'az9' }
  assert.deepEqual(await put(foreign), [409, 'SITE_NOT_OF_GROUP'])
  // In force already: nobody is asked.
  assert.deepEqual(await put({ mode: 'witness' }), [200, 'witness'])
})
