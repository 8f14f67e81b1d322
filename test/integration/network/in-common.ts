/** What VPCs, subnets, ports and security groups have in common: lists, tags, quotas, routes. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { newId } from '#base/ids.ts'
import { createPort, defaultSubnetId, defaultVpcId } from '#control/resources/networks.ts'
import { setQuotaLimit } from '#control/resources/surroundings.ts'
import type { NetworkQuotaKind } from '#domain/quota.ts'
import { GROUPS, type NetworkApi, SUBNETS, TABLES, VPCS } from './network-api.ts'

/** `of`: the API when it has been started. */
export function testsInCommon(of: () => NetworkApi): void {
  test('lists are paged by the last id, and those of Neutron link the next page', async () => {
    const api = of()
    const home = await api.vpc()
    const nets = []
    for (const third of [1, 2, 3, 4]) {
      const over = { cidr: `10.0.${third}.0/24`, gateway_ip: `10.0.${third}.1` }
      nets.push((await api.subnet(home, over)).id)
    }
    const walk = async (url: string, list: string, limit: number) => {
      const ids: string[] = []
      for (let marker = ''; ; marker = ids.at(-1) ?? '') {
        const page = (await api.ok('GET', `${url}?limit=${limit}${marker && `&marker=${marker}`}`))[
          list
        ]
        if (page.length === 0) return ids
        ids.push(...page.map((one: { id: string }) => one.id))
      }
    }
    for (const [url, list] of [
      [SUBNETS, 'subnets'],
      [VPCS, 'vpcs'],
      [GROUPS, 'security_groups'],
      ['/v2.0/networks', 'networks'],
      ['/v2.0/subnets', 'subnets'],
    ] as const) {
      const all = (await api.ok('GET', url))[list].map((one: { id: string }) => one.id)
      assert.deepEqual(await walk(url, list, 2), all, url)
      assert.deepEqual((await api.ok('GET', `${url}?marker=${newId()}`))[list], [])
      assert.deepEqual((await api.ok('GET', `${url}?limit=0`))[list].length, all.length)
    }
    const first = await api.ok('GET', '/v2.0/networks?limit=2&sort_key=name&sort_dir=desc')
    const [link] = first.networks_links
    assert.equal(link.rel, 'next')
    const next = new URL(link.href)
    assert.equal(next.host, '127.0.0.1:7410')
    const second = await api.ok('GET', next.pathname + next.search)
    const names = [...first.networks, ...second.networks].map((one: { name: string }) => one.name)
    assert.deepEqual(names, names.toSorted().toReversed())
    assert.equal((await api.ok('GET', '/v2.0/networks?limit=1000')).networks_links, undefined)
    for (const url of [`/v1/${api.project}/vpcs?limit=x`, '/v2.0/networks?limit=-1']) {
      const headers = { 'x-auth-token': api.token }
      assert.equal((await api.lab.call({ url, headers })).status, 400, url)
    }
    for (const id of nets) await api.ok('DELETE', `${VPCS}/${home}/subnets/${id}`, undefined, 204)
    await api.ok('DELETE', `${VPCS}/${home}`, undefined, 204)
  })

  test('networks are found by the members that clients ask for', async () => {
    const api = of()
    const id = defaultSubnetId(api.project)
    for (const [query, found] of [
      [`name=default`, true],
      [`id=${id}&status=ACTIVE`, true],
      [`status=ACTIVE&id=${newId()}`, false],
      ['router:external=True', false],
      ['router%3Aexternal=false', true],
      ['shared=False', true],
      [`tenant_id=${api.project}`, true],
      [`project_id=${'f'.repeat(32)}`, false],
      ['provider:network_type=vlan', true],
      ['name=', true],
    ] as const) {
      const { networks } = await api.ok('GET', `/v2.0/networks?${query}`)
      assert.equal(
        networks.some((one: { id: string }) => one.id === id),
        found,
        query,
      )
    }
    const { subnets } = await api.ok(
      'GET',
      `/v2.0/subnets?network_id=${id}&ip_version=4&enable_dhcp=true`,
    )
    assert.equal(subnets.length, 1)
    assert.deepEqual(await api.ok('GET', '/v2.0/extensions'), { extensions: [] })
    assert.equal((await api.call('GET', '/v2.0/extensions')).status, 200)
  })

  test('what clients must be told is absent is absent, and what is not offered says so', async () => {
    const api = of()
    const headers = { 'x-auth-token': api.token }
    for (const [method, url, status] of [
      ['GET', '/v2.0/extensions/Availability%20Zone', 404],
      ['POST', `/v3/${api.project}/vpc/security-groups`, 404],
      ['PUT', `/v3/${api.project}/vpc/security-groups/${newId()}`, 404],
      ['GET', `/v3/${api.project}/vpc/security-groups/${newId()}`, 404],
      ['GET', '/v2.0/routers', 404],
      ['POST', '/v2.0/networks', 405],
      ['POST', '/v2.0/subnets', 405],
      ['DELETE', `/v2.0/networks/${newId()}`, 405],
    ] as const) {
      const reply = await api.lab.call({
        method,
        url,
        headers,
        ...(method === 'GET' ? {} : { body: {} }),
      })
      assert.equal(reply.status, status, `${method} ${url}: ${reply.text}`)
    }
  })

  test('tags of VPCs, subnets and security groups are added, replaced, listed and removed', async () => {
    const api = of()
    const home = await api.vpc()
    const { id: group } = (await api.ok('POST', GROUPS, { security_group: { name: 'tagged' } }))
      .security_group
    for (const path of [
      `vpcs/${home}`,
      `subnets/${defaultSubnetId(api.project)}`,
      `security-groups/${group}`,
    ]) {
      const url = `/v2.0/{project}/${path}/tags`
      assert.deepEqual((await api.ok('GET', url)).tags, [])
      const act = async (action: string, tags: readonly object[], status = 204) =>
        await api.ok('POST', `${url}/action`, { action, tags }, status)
      await act('create', [
        { key: 'b', value: '2' },
        { key: 'a', value: '' },
      ])
      await act('create', [{ key: 'b', value: '3' }])
      assert.deepEqual((await api.ok('GET', url)).tags, [
        { key: 'a', value: '' },
        { key: 'b', value: '3' },
      ])
      const many = Array.from({ length: 19 }, (_, at) => ({ key: `k${at}`, value: 'v' }))
      for (const [action, tags] of [
        ['create', many],
        ['create', [{ key: ' a', value: '' }]],
        ['create', [{ key: 'a' }, { key: 'a' }]],
        ['create', []],
        ['drop', [{ key: 'a' }]],
      ] as const) {
        await api.refused('POST', `${url}/action`, { action, tags }, 400, 'InvalidInput')
      }
      await act('delete', [{ key: 'a' }, { key: 'absent' }])
      assert.deepEqual((await api.ok('GET', url)).tags, [{ key: 'b', value: '3' }])
      await act('delete', [{ key: 'b' }])
    }
    await api.ok(
      'POST',
      `/v2.0/{project}/vpcs/${home}/tags/action`,
      {
        action: 'create',
        tags: [{ key: 'a', value: 'b' }],
      },
      204,
    )
    await api.ok('DELETE', `${GROUPS}/${group}`, undefined, 204)
    await api.ok('DELETE', `${VPCS}/${home}`, undefined, 204)
    const left = await api.lab.store.db.selectFrom('tags').selectAll().execute()
    assert.deepEqual(left, [], 'tags go with what they are on')
  })

  test('a project has as much of each as its quota says, and not one more', async () => {
    const api = of()
    const other = await api.lab.project('local-1_small')
    const { token: small } = await api.lab.userWith('operator', other)
    const limit = async (kind: NetworkQuotaKind, most: number) =>
      await api.lab.store.write((tx) => setQuotaLimit(tx, other, kind, most))
    const post = async (url: string, body: unknown) => {
      const headers = { 'x-auth-token': small }
      return await api.lab.call({ method: 'POST', url: `/v1/${other}/${url}`, headers, body })
    }
    const full = async (url: string, body: unknown) => {
      const reply = await post(url, body)
      assert.deepEqual([reply.status, reply.body.code], [409, 'VPC.0114'], `${url}: ${reply.text}`)
    }
    await limit('vpcs', 2)
    const made = await post('vpcs', { vpc: { name: 'a', cidr: '10.0.0.0/16' } })
    assert.equal(made.status, 200)
    await full('vpcs', { vpc: { name: 'b', cidr: '10.0.0.0/16' } })

    await limit('subnets', 1)
    const net = { name: 'n', cidr: '10.0.0.0/24', gateway_ip: '10.0.0.1', vpc_id: made.body.vpc.id }
    await full('subnets', { subnet: net })
    await limit('subnets', 2)
    assert.equal((await post('subnets', { subnet: net })).status, 200)

    await limit('security_groups', 1)
    await full('security-groups', { security_group: { name: 'g' } })
    await limit('security_groups', 2)
    await limit('security_group_rules', 7)
    await full('security-groups', { security_group: { name: 'g' } })
    await limit('security_group_rules', 8)
    const group = await post('security-groups', { security_group: { name: 'g' } })
    assert.equal(group.status, 200)
    await full('security-group-rules', {
      security_group_rule: {
        security_group_id: group.body.security_group.id,
        direction: 'ingress',
        protocol: 'icmp',
      },
    })
    await limit('ports', 0)
    const outcome = await api.lab.store.write(
      async (tx) =>
        await createPort(
          tx,
          {
            project: other,
            subnet: null,
            address: null,
            server: null,
            place: 0,
            securityGroups: [],
            deleteWithServer: false,
            name: '',
          },
          1,
        ),
    )
    assert.deepEqual(outcome, { ok: false, refusal: 'QUOTA_PORTS' })
  })

  test('networks, security groups and tags go with their project', async () => {
    const api = of()
    const other = await api.lab.project('local-1_passing')
    const { token: theirs } = await api.lab.userWith('operator', other)
    const headers = { 'x-auth-token': theirs }
    const url = `/v2.0/${other}/vpcs/${defaultVpcId(other)}/tags/action`
    const body = { action: 'create', tags: [{ key: 'a', value: 'b' }] }
    assert.equal((await api.lab.call({ method: 'POST', url, headers, body })).status, 204)
    await api.lab.identity.management.deleteProject(await api.lab.domain(), other)
    for (const table of [...TABLES, 'tags'] as const) {
      const left = api.lab.store.db.selectFrom(table).select('project').where('project', '=', other)
      assert.deepEqual(await left.execute(), [], table)
    }
  })

  test('every route is on the page of its API, with its method, and nothing else is', () => {
    const api = of()
    for (const [page, dialects] of [
      ['network.md', ['vpc', 'neutron']],
      ['image.md', ['glance']],
    ] as const) {
      const file = join(import.meta.dirname, '../../../docs/compatibility', page)
      const served = readFileSync(file, 'utf8')
        .split('\n')
        .filter((line) => /^\| `\/.*\| (?:GET|POST|PUT|DELETE)/.test(line))
        .flatMap((line) => {
          const [, paths = '', methods = ''] = line.split('|')
          return [...paths.matchAll(/`([^`]+)`/g)].flatMap(([, path = '']) =>
            methods
              .split(',')
              .map((method) => `${method.trim()} ${path.replaceAll(/\{[^}]*\}/g, '{}')}`),
          )
        })
      const mounted = api.lab.app.routeTable
        .filter(({ dialect }) => dialects.some((name) => name === dialect.name))
        .map(({ method, url }) => {
          const path = url.replace(':project_id', 'P').replaceAll(/:[a-z_]+/g, '{}')
          return `${method} ${path}`
        })
      assert.deepEqual(served.toSorted(), mounted.toSorted(), page)
    }
  })
}
