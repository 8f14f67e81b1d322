/** Tags of backups and policies, and the lists of the backup service. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { newId } from '#base/ids.ts'
import type { CsbsMade } from './made.ts'

export function testTagsAndLists(of: () => CsbsMade): void {
  test('tags follow their own rules', async () => {
    const { world, item, policy, refusals } = of()
    for (const [base, one] of [
      ['csbs_backup', item.id],
      ['csbs_backup_policy', policy.id],
    ]) {
      const tags = `${base}/${one}/tags`
      await world.ok('POST', tags, { tag: { key: ' a ', value: ' b ' } })
      await world.ok('POST', `${tags}/action`, {
        action: 'create',
        tags: [
          { key: 'a', value: 'c' },
          { key: 'd', value: '' },
        ],
      })
      assert.deepEqual((await world.ok('GET', tags)).tags, [
        { key: 'a', value: 'c' },
        { key: 'd', value: '' },
      ])
      assert.deepEqual((await world.ok('GET', `${base}/tags`)).tags, [
        { key: 'a', values: ['c'] },
        { key: 'd', values: [''] },
      ])
      const query = `${base}/resource_instances/action`
      const found = await world.ok('POST', query, {
        action: 'filter',
        tags: [{ key: 'a', values: ['*c'] }],
        limit: '10',
      })
      assert.equal(found.total_count, 1)
      assert.equal(found.resources[0].resource_id, one)
      assert.deepEqual(
        await world.ok('POST', query, {
          action: 'count',
          not_tags: [{ key: 'a', values: [] }],
          matches: [{ key: 'resource_name', value: 'no such name' }],
        }),
        { total_count: 0 },
      )
      await world.ok('POST', `${tags}/action`, {
        action: 'delete',
        tags: [{ key: 'a', value: 'other' }, { key: 'gone' }],
      })
      await world.ok('DELETE', `${tags}/a`)
      await refusals([
        ['CSBS.7001', 404, 'DELETE', `${tags}/a`],
        ['CSBS.9001', 400, 'POST', tags, { tag: { key: 'a b', value: '' } }],
        ['CSBS.9001', 400, 'POST', `${tags}/action`, { action: 'create', tags: [] }],
        [
          'CSBS.7000',
          400,
          'POST',
          `${tags}/action`,
          {
            action: 'create',
            tags: Array.from({ length: 10 }, (_, at) => ({ key: `k${at}`, value: '' })),
          },
        ],
        ['CSBS.9001', 400, 'POST', query, { action: 'count', limit: '1' }],
        ['CSBS.9001', 400, 'POST', query, { action: 'filter', limit: '1001' }],
      ])
    }
  })

  test('lists are paged by marker, offset and limit, and filtered', async () => {
    const { world, item, id, refusals } = of()
    const all = (await world.ok('GET', 'checkpoint_items')).checkpoint_items as {
      id: string
      name: string
    }[]
    assert.ok(all.length >= 3)
    const walked: string[] = []
    for (let next = 'checkpoint_items?limit=1'; next !== ''; ) {
      const page = await world.ok('GET', next)
      walked.push(...page.checkpoint_items.map((one: { id: string }) => one.id))
      next = page.checkpoint_items_links?.[0]?.href.replace(/^.*\/(checkpoint_items)/, '$1') ?? ''
    }
    assert.deepEqual(
      walked,
      all.map((one) => one.id),
    )
    const named = (await world.ok('GET', 'checkpoint_items?sort=name:asc,created_at'))
      .checkpoint_items as { name: string }[]
    assert.deepEqual(
      named.map(({ name }) => name),
      all.map(({ name }) => name).toSorted(),
    )
    const count = async (query: string) =>
      (await world.ok('GET', `checkpoint_items/count?${query}`)).count
    assert.equal(await count(''), all.length)
    assert.equal(await count(`resource_id=${id(0)}&status=error`), 1)
    assert.equal(await count('image_type=replication'), 0)
    assert.equal(await count('image_type=snapshot'), 0)
    assert.equal(await count(`name=${item.name.slice(2, 8).toUpperCase()}&resource_id=${id(0)}`), 2)
    assert.equal(await count('name=_%25'), 0)
    assert.equal(await count('end_time=2020-01-01T00:00:00'), 0)
    const renamed = { resource_name: 'Übung 1' }
    await world.lab.store.write(async (tx) => {
      await tx.updateTable('checkpoint_items').set(renamed).where('id', '=', item.id).execute()
    })
    assert.equal(await count(`resource_name=${encodeURIComponent('Übu')}`), 1)
    assert.equal(await count('policy_id=&status=available&az=az1&unknown=x'), all.length - 1)
    await refusals([
      ['CSBS.9001', 400, 'GET', 'checkpoint_items?limit=0'],
      ['CSBS.9001', 400, 'GET', 'checkpoint_items?limit=x'],
      ['CSBS.9001', 400, 'GET', 'checkpoint_items?offset=-1'],
      ['CSBS.9001', 400, 'GET', `checkpoint_items?marker=${newId()}`],
      ['CSBS.9001', 400, 'GET', 'checkpoint_items?sort=size'],
      ['CSBS.9001', 400, 'GET', 'checkpoint_items?sort=name&sort_key=name'],
      ['CSBS.9001', 400, 'GET', 'checkpoint_items?start_time=yesterday'],
      ['CSBS.9001', 400, 'GET', 'policies?limit=-1'],
      ['CSBS.9001', 400, 'GET', 'triggers?all_tenants=maybe'],
    ])
  })
}
