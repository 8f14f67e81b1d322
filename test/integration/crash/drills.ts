/** A drill over a control plane that dies at every boundary of its making and of its end. */
import assert from 'node:assert/strict'
import type { FakeGuests } from '../../support/fake-guests.ts'
import type { Answer, Lives } from './lives.ts'

const DRILLS = '/v1/{project}/disaster-recovery-drills'

/** Made once, looked at, and deleted without a trace, however often the control plane dies. */
export async function drillLife(lives: Lives, group: string, guests: FakeGuests): Promise<void> {
  const named = async (): Promise<Answer['body']> => {
    const rows = await lives.get(`${DRILLS}?server_group_id=${group}`, 'disaster_recovery_drills')
    return rows === null ? null : (rows[0] ?? undefined)
  }
  const before = new Set(guests.guests.keys())
  const body = { disaster_recovery_drill: { server_group_id: group, name: 'rehearsal' } }
  await lives.change('POST', DRILLS, body, async () => {
    const found = await named()
    return found === null ? null : found !== undefined
  })
  const drill = await lives.until('the drill is made', async () => {
    const found = await named()
    assert.ok(!String(found?.status).startsWith('error'), JSON.stringify(found))
    return found?.status === 'available' ? found : null
  })
  const [server] = drill.drill_servers
  assert.equal(guests.guests.get(server.drill_server_id)?.power, 'running')
  assert.equal(guests.guests.size, before.size + 1)

  const path = `${DRILLS}/${drill.id}`
  await lives.change('DELETE', path, undefined, async () => {
    const answer = await lives.ask('GET', path)
    if (answer === null) return null
    return answer.status === 404 || answer.body.disaster_recovery_drill.status === 'deleting'
  })
  await lives.until('the drill is gone', async () => {
    const answer = await lives.ask('GET', path)
    assert.notEqual(answer?.body.disaster_recovery_drill?.status, 'error-deleting')
    return answer?.status === 404 ? true : null
  })
  assert.deepEqual(new Set(guests.guests.keys()), before)
  const reports = await lives.until('its reports', async () =>
    lives.get(`/api/v1/drill-reports?drill=${drill.id}`, 'reports'),
  )
  assert.deepEqual(
    reports.map(({ stage }: { stage: string }) => stage),
    ['ended', 'ready'],
    'one report of its making, and one of its end',
  )
  const last = await lives.until('its last report', async () =>
    lives.get(`/api/v1/drills/${drill.id}/report`, 'report'),
  )
  assert.equal(last.teardown.verdict, 'clean')
  assert.equal(last.result, 'passed')
  assert.notEqual(last.moment.sequence, null, 'the moment is known, whoever died')
}
