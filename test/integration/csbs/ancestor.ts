/** What the backup service has from its ancestor: plans, triggers, scheduled operations, quotas, services, verifications. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { newId } from '#base/ids.ts'
import { pattern, PROVIDER } from '../../support/backup-world.ts'
import type { CsbsMade } from './made.ts'

const checkpoints = `providers/${PROVIDER}/checkpoints`

export function testAncestor(of: () => CsbsMade): void {
  test('the forms of the ancestor: plans, triggers, scheduled operations, quotas, services, verifications', async () => {
    const { world, servers, id, refusals } = of()
    const resources = [{ id: id(7), type: 'OS::Nova::Server', name: 'seven' }]
    const create = { name: 'plan', provider_id: PROVIDER, parameters: {}, resources }
    await refusals([
      ['CSBS.9001', 400, 'POST', 'plans', { plan: { ...create, extra: 1 } }],
      ['CSBS.9001', 400, 'POST', 'plans', { plan: { ...create, resources: [] } }],
      ['CSBS.3000', 404, 'GET', `plans/${newId()}`],
    ])
    const { plan } = await world.ok('POST', 'plans', { plan: create })
    assert.equal(plan.status, 'suspended')
    await world.ok('PUT', `plans/${plan.id}`, { plan: { name: 'renamed' } })
    assert.equal((await world.ok('GET', `plans/${plan.id}`)).plan.name, 'renamed')
    const trigger = (properties: object) => ({
      trigger_info: { name: 'daily', type: 'time', properties },
    })
    const calendar = {
      format: 'calendar',
      pattern: pattern('FREQ=DAILY;BYHOUR=1;BYMINUTE=0').replaceAll('\r\n', '\\r\\n'),
    }
    await refusals([
      ['CSBS.9001', 400, 'POST', 'triggers', trigger({ ...calendar, format: 'crontab' })],
      [
        'CSBS.9001',
        400,
        'POST',
        'triggers',
        trigger({ ...calendar, start_time: '2026-01-01T00:00:00' }),
      ],
      ['CSBS.9001', 400, 'POST', 'triggers', trigger({ ...calendar, window: 60 })],
      [
        'CSBS.9001',
        400,
        'POST',
        'triggers',
        trigger({
          ...calendar,
          start_time: '2026-01-02 00:00:00',
          end_time: '2026-01-01 00:00:00',
        }),
      ],
    ])
    const made = (await world.ok('POST', 'triggers', trigger({ ...calendar, window: 1_200 })))
      .trigger_info
    assert.equal(made.properties.window, 1_200)
    assert.deepEqual((await world.ok('GET', `triggers/${made.id}`)).trigger_info, made)
    const operation = (
      await world.ok('POST', 'scheduled_operations', {
        scheduled_operation: {
          name: 'nightly',
          operation_type: 'retention_protect',
          trigger_id: made.id,
          operation_definition: {
            plan_id: plan.id,
            provider_id: PROVIDER,
            max_backups: '3',
            retention_duration: 7,
          },
        },
      })
    ).scheduled_operation
    assert.equal(operation.operation_definition.retention_duration, 7)
    assert.ok((await world.ok('GET', 'scheduled_operations')).operations.length > 1)
    assert.equal(
      (await world.ok('GET', `scheduled_operations/${operation.id}`)).scheduled_operation.id,
      operation.id,
    )
    const used = await world.call('DELETE', `triggers/${made.id}`)
    assert.equal(used.status, 424)
    assert.equal(used.body.computeFault.code, 424)
    await refusals([
      [
        'CSBS.9001',
        400,
        'PUT',
        `triggers/${made.id}`,
        trigger({ format: 'calendar', pattern: 'x' }),
      ],
    ])
    const start = '2026-01-01 00:00:00'
    const moved = await world.ok('PUT', `triggers/${made.id}`, {
      trigger_info: { properties: { start_time: start } },
    })
    assert.equal(moved.trigger_info.properties.start_time, start)

    await world.report()
    const run = { checkpoint: { plan_id: plan.id, 'extra-info': null } }
    const { checkpoint } = await world.ok('POST', checkpoints, run)
    assert.equal(checkpoint.resource_graph, null)
    await world.settled()
    const shown = (await world.ok('GET', `${checkpoints}/${checkpoint.id}`)).checkpoint
    assert.equal(shown.status, 'available')
    assert.equal(shown.resource_graph, '[]')
    assert.equal(shown.protection_plan.name, 'renamed')
    assert.deepEqual(JSON.parse(shown.extra_info), { created_by: 'manual' })
    const today = new Date(world.lab.clock.wallMs()).toISOString().slice(0, 10)
    const listed = await world.ok(
      'GET',
      `${checkpoints}?plan_id=${plan.id}&start_date=${today}&end_date=${today}`,
    )
    assert.equal(listed.checkpoints.length, 1)
    await world.report()
    const { verification } = await world.ok('POST', 'verifications', {
      verification: { provider_id: PROVIDER, checkpoint_id: checkpoint.id },
    })
    await world.settled()
    assert.equal(
      (await world.ok('GET', `verifications/${verification.id}`)).verification.status,
      'success',
    )
    assert.equal((await world.ok('GET', 'verifications?status=success')).verifications.length, 1)
    // Without named targets, everything goes back to where it came from.
    await world.ok('POST', 'restores', {
      restore: {
        provider_id: PROVIDER,
        checkpoint_id: checkpoint.id,
        parameters: {},
        restore_target: null,
        restore_auth: null,
      },
    })
    await world.settled()
    const [restore] = (await world.ok('GET', 'restores?status=success')).restores
    assert.deepEqual(restore.parameters, {})
    assert.deepEqual((await world.ok('GET', `restores/${restore.id}`)).restore, restore)
    // Under another provider there is no such checkpoint.
    const elsewhere = { provider_id: newId(), checkpoint_id: checkpoint.id, parameters: {} }
    const there = `providers/${elsewhere.provider_id}/checkpoints/${checkpoint.id}`
    await refusals([
      ['CSBS.9001', 400, 'POST', 'restores', { restore: elsewhere }],
      ['CSBS.9001', 400, 'POST', 'verifications', { verification: elsewhere }],
      ['CSBS.3001', 404, 'GET', there],
      ['CSBS.3001', 404, 'DELETE', there],
    ])
    const logs = (await world.ok('GET', `operation_logs?checkpoint_id=${checkpoint.id}`))
      .operation_logs as { operation_type: string; provider_id: string }[]
    assert.deepEqual(
      logs.map((one) => `${one.operation_type} ${one.provider_id}`).toSorted(),
      ['protect', 'restore', 'verify'].map((type) => `${type} ${PROVIDER}`),
    )
    const [log] = (await world.ok('GET', `operation_logs?restore_id=${restore.id}`)).operation_logs
    assert.equal(
      (await world.ok('GET', `operation_logs/${log.id}`)).operation_log.operation_type,
      'restore',
    )
    await world.ok('PUT', `${checkpoints}/${checkpoint.id}`, {
      'os-resetState': { state: 'error' },
    })
    await refusals([
      [
        'CSBS.9001',
        400,
        'PUT',
        `${checkpoints}/${checkpoint.id}`,
        { 'os-resetState': { state: 'deleted' } },
      ],
      ['CSBS.9001', 400, 'POST', `${checkpoints}/action`, { copy: { plan_id: newId() } }],
      [
        'CSBS.3001',
        404,
        'POST',
        'verifications',
        { verification: { provider_id: PROVIDER, checkpoint_id: newId() } },
      ],
      ['CSBS.6003', 400, 'GET', 'protectables/OS::Glance::Image'],
      ['CSBS.6000', 404, 'GET', `protectables/OS::Nova::Server/instances/${newId()}`],
      ['CSBS.9001', 404, 'GET', `providers/${newId()}`],
      ['CSBS.9001', 400, 'PUT', 'os-services/1', { status: 'disabled' }],
      ['CSBS.9001', 404, 'PUT', 'os-services/9', { status: 'enabled' }],
    ])
    const { instance } = await world.ok('GET', `protectables/OS::Nova::Server/instances/${id(7)}`)
    assert.equal(instance.dependent_resources[0].id, servers[7]?.volume)
    const instances = 'protectables/OS::Nova::Server/instances'
    const all = (await world.ok('GET', `${instances}?sort=name:asc`)).instances as { id: string }[]
    assert.equal(all.length, servers.length)
    assert.deepEqual(
      all.find((one) => one.id === id(7)),
      instance,
    )
    const second = `${instances}?sort=name:asc&limit=2&marker=${all[1]?.id}`
    const page = await world.ok('GET', second)
    assert.deepEqual(page.instances, all.slice(2, 4))
    assert.match(page.instances_links[0].href, new RegExp(`marker=${all[3]?.id}$`))
    assert.deepEqual((await world.ok('GET', `${second}&offset=1`)).instances, all.slice(3, 5))
    assert.deepEqual((await world.ok('GET', `${instances}?status=building`)).instances.length, 2)
    await refusals([['CSBS.9001', 400, 'GET', `${instances}?marker=${newId()}`]])
    await world.ok('GET', 'protectables/OS::Nova::Server')
    await world.ok('GET', 'protectables')
    await world.ok('GET', `providers/${PROVIDER}`)
    assert.deepEqual((await world.ok('GET', 'providers?description=other')).providers, [])
    await world.ok('GET', 'providers')
    await world.ok('GET', 'os-services')
    await world.ok('PUT', 'os-services/1', { status: 'enabled' })

    const quota = `quotas/${world.project}`
    await world.ok('PUT', quota, { quota: { plans: 1 } })
    await refusals([
      ['CSBS.9006', 413, 'POST', 'plans', { plan: create }],
      ['CSBS.9001', 400, 'PUT', quota, { quota: { plans: -2 } }],
    ])
    assert.equal((await world.ok('GET', `${quota}/detail`)).quota.plans.limit, 1)
    await world.ok('DELETE', quota)
    assert.equal((await world.ok('GET', quota)).quota.plans, 50)
    await world.ok('PUT', 'quota_classes/default', { quota_class: { plans: 60 } })
    assert.equal((await world.ok('GET', `${quota}/defaults`)).quota.plans, 60)
    assert.equal((await world.ok('GET', 'quota_classes/default')).quota_class.plans, 60)
    await world.ok('GET', 'quotas')
    await world.ok('GET', 'protect_config')
    await world.ok('GET', 'replication_capabilities')

    // Who deletes what lets backups go keeps them, and they say so.
    const item = (await world.ok('GET', `checkpoint_items?policy_id=${plan.id}`))
      .checkpoint_items[0].id
    const expiry = async (): Promise<unknown> =>
      (await world.ok('GET', `checkpoint_items/${item}`)).checkpoint_item.expired_at
    const expire = () =>
      world.lab.store.write((tx) =>
        tx
          .updateTable('checkpoint_items')
          .set({ expires_at: world.lab.clock.wallMs() + 86_400_000 })
          .where('id', '=', item)
          .execute(),
      )
    await expire()
    assert.match(String(await expiry()), /^2/)
    await world.ok('DELETE', `scheduled_operations/${operation.id}`)
    assert.equal(await expiry(), null)
    await expire()
    await world.ok('DELETE', `triggers/${made.id}`)
    assert.ok((await world.ok('GET', 'triggers?type=time')).triggers.length > 0)
    assert.deepEqual((await world.ok('GET', 'triggers?type=event')).triggers, [])
    await world.ok('DELETE', `plans/${plan.id}`)
    assert.equal(await expiry(), null)
    await world.ok('GET', 'plans')
  })
}
