/** What cannot be a pair, a group or an action of the volume API. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  type EvsReplications,
  GROUPS,
  OVER,
  PAIRS,
  pairOf,
} from '../../support/evs-replications.ts'

/** `of`: the region's when it has been started. */
export function testRefusals(of: () => EvsReplications): void {
  test('what cannot be a pair, a group or an action is refused with its reason, and changes nothing', async () => {
    const evs = of()
    const { region } = evs
    const made = await evs.makePair('guards-a')
    const third = await region.volume('guards-c')
    const large = await region.volume('guards-large', 2, 'az2')
    const free = await region.volume('guards-free', 1, 'az2')
    const unknown = '00000000-0000-4000-8000-000000000000'
    const pairWith = async (status: number, code: string, ids: unknown, more: object = {}) =>
      await evs.refused(status, code, 'POST', PAIRS, pairOf('az1', ids as string[], more))
    await pairWith(404, 'EVS.5404', [third, unknown])
    await pairWith(400, 'EVS.5400', [third, made.az1])
    await pairWith(400, 'EVS.2089', [third, made.az2])
    await pairWith(400, 'EVS.2089', [made.az1, free])
    assert.match(await pairWith(400, 'EVS.5400', [third, large]), /37100041/)
    const flag = async (readonly: boolean) =>
      await region.ok(
        'POST',
        `/v2/{project}/volumes/${free}/action`,
        { 'os-update_readonly_flag': { readonly } },
        202,
      )
    await flag(true)
    assert.match(await pairWith(409, 'EVS.5400', [third, free]), /read-only/)
    await flag(false)
    await pairWith(400, 'EVS.5400', [third, free], { priority_station: 'az3' })
    await pairWith(400, 'EVS.5400', [third, free], { replication_model: 'async' })
    await pairWith(400, 'EVS.5400', [third])
    await pairWith(400, 'EVS.5400', [third, third])
    await pairWith(400, 'EVS.5400', `${third},${free}`)
    await pairWith(400, 'EVS.1003', [third, free], { name: 'é'.repeat(128) })
    await pairWith(400, 'EVS.5400', [third, free], { arbitration: { mode: 'dice' } })
    await evs.refused(400, 'EVS.5400', 'POST', PAIRS, { pair: {} })
    await evs.refused(400, 'EVS.2089', 'DELETE', `/v2/{project}/volumes/${made.az2}`)
    await evs.refused(400, 'EVS.2089', 'POST', `/v2/{project}/volumes/${made.az1}/action`, {
      'os-extend': { new_size: 2 },
    })
    const attached = { 'os-attach': { instance_uuid: unknown, mountpoint: '/dev/vdb' } }
    await region.ok('POST', `/v2/{project}/volumes/${free}/action`, attached, 202)
    assert.match(await pairWith(409, 'EVS.5400', [third, free]), /37100058/)

    const groupOf = async (status: number, code: string, ids: unknown, more: object = {}) =>
      await evs.refused(status, code, 'POST', GROUPS, {
        replication_consistency_group: {
          replication_ids: ids,
          priority_station: 'az1',
          replication_model: 'hypermetro',
          ...more,
        },
      })
    await groupOf(400, 'EVS.5400', [])
    await groupOf(404, 'EVS.5404', [unknown])
    await groupOf(400, 'EVS.5400', [made.pair], { priority_station: 'az2' })
    await groupOf(400, 'EVS.5400', [made.pair, made.pair])
    const group = await evs.makeGroup('guards', [made.pair])
    await groupOf(409, 'EVS.5400', [made.pair])
    await evs.refused(409, 'EVS.5400', 'DELETE', `${PAIRS}/${made.pair}`)
    await evs.refused(409, 'EVS.5400', 'DELETE', `${GROUPS}/${group}`)
    const path = `${GROUPS}/${group}/action`
    const action = (name: string) => ({ [`os-${name}-replication-consistency-group`]: null })
    await evs.refused(409, 'EVS.5400', 'POST', path, action('reprotect'))
    await evs.refused(400, 'EVS.5400', 'POST', path, action('explode'))
    await evs.refused(400, 'EVS.5400', 'POST', path, { ...action('sync'), ...action('stop') })
    await evs.refused(404, 'EVS.5404', 'POST', `${GROUPS}/${unknown}/action`, action('sync'))
    await region.write('az1', made.pair, 'before the pause')
    await evs.act(group, 'stop')
    await evs.refused(409, 'EVS.5400', 'POST', path, action('reverse'))
    assert.match(
      await evs.refused(409, 'EVS.5400', 'POST', path, action('failover')),
      /paused.*force/,
    )
    await evs.refused(400, 'EVS.5400', 'PUT', `${GROUPS}/${group}`, {
      replication_consistency_group: { remove_replication_ids: [unknown] },
    })
    await evs.refused(400, 'EVS.5400', 'PUT', `${GROUPS}/${group}`, {
      replication_consistency_group: {},
    })

    // By force it goes to what the DR disks held then, and what production wrote since is kept until somebody deletes it.
    await region.write('az1', made.az1, 'after the pause')
    await evs.act(group, 'failover', { force: true })
    const over = await evs.until(() => evs.showGroup(group), OVER, ['failovering', 'available'])
    assert.equal(over['priority_station'], 'az2')
    assert.equal(await region.read('az2', made.az2), 'before the pause')
    await region.refuses('az1', made.az1)
    await region.write('az2', made.az2, 'at the other site')
    await evs.act(group, 'reprotect')
    await evs.groupActive(group, ['failovered', 'active-stopped', 'inactive'])
    assert.equal(await region.read('az2', made.pair), 'at the other site')
    await region.refuses('az1', made.az1)
    const kept = region.plane.store.db
      .selectFrom('snapshots')
      .select(['site', 'volumes', 'status'])
      .where('group_id', '=', group)
    assert.deepEqual(await kept.execute(), [
      { site: 'az1', volumes: JSON.stringify([made.az1]), status: 'available' },
    ])
    await evs.act(group, 'stop')

    for (const [method, way, status] of [
      ['GET', `${PAIRS}/detail`, 404],
      ['GET', `${GROUPS}/detail`, 404],
      ['PUT', `${PAIRS}/${made.pair}`, 405],
      ['POST', `${PAIRS}/${made.pair}/action`, 404],
    ] as const) {
      assert.equal(
        (await region.call(method, way, method === 'GET' ? undefined : {})).status,
        status,
      )
    }
    for (const way of [`${PAIRS}/${made.pair}`, `${GROUPS}/${group}`]) {
      const strange = way.replace('{project}', 'b'.repeat(32))
      assert.equal((await region.call('GET', strange, undefined, 'stranger')).status, 404)
      assert.equal((await region.call('DELETE', way, undefined, 'reader')).status, 403)
    }
    await evs.removeGroup(group)
  })
}
