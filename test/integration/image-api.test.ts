/** The image API in its three spellings; every answer is held against the contract. */
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { newId } from '#base/ids.ts'
import { imageId } from '#control/resources/images.ts'
import { violations } from '../contracts/validate.ts'
import { ApiLab, type Reply } from '../support/api.ts'

let lab: ApiLab
let token: string

before(async () => {
  lab = await ApiLab.start()
  token = await lab.adminToken()
})
after(async () => await lab.stop())

async function get(url: string): Promise<Reply> {
  const path = url.replace('{project}', lab.admin.project_id)
  const reply = await lab.call({ url: path, headers: { 'x-auth-token': token } })
  // Everything below the catalogue's address equals the same path without its first part.
  const found = violations('compute', {
    method: 'GET',
    path: path.replace(/^\/image\/v2/, '/v2'),
    status: reply.status,
    headers: reply.headers,
    text: reply.text,
  })
  assert.deepEqual(found, [], `GET ${path} → ${reply.status}: ${reply.text}`)
  return reply
}

const NAMES = ['holdfast-counter', 'holdfast-tiny']
const LISTS = [
  '/image/v2/images',
  '/v2/images',
  '/image/v2/cloudimages',
  '/v2/cloudimages',
  '/v2.1/{project}/cloudimages',
]

async function names(url: string): Promise<string[]> {
  const { status, body, text } = await get(url)
  assert.equal(status, 200, text)
  return body.images.map((image: { name: string }) => image.name)
}

test('the built-in images are there from the beginning, under ids that follow from their names', async () => {
  for (const list of LISTS) {
    assert.deepEqual((await names(list)).toSorted(), NAMES, list)
    for (const name of NAMES) {
      const { body } = await get(`${list}?name=${name}`)
      assert.deepEqual(
        body.images.map(({ id }: { id: string }) => id),
        [imageId(name)],
      )
    }
  }
  for (const base of ['/image/v2', '/v2']) {
    const id = imageId('holdfast-tiny')
    const { body } = await get(`${base}/images/${id}`)
    assert.deepEqual([body.id, body.name, body.status], [id, 'holdfast-tiny', 'active'])
  }
})

test('a name in the place of an id is not found, so that clients go on to look it up', async () => {
  for (const id of ['holdfast-tiny', newId(), 'x']) {
    const { status, body } = await get(`/image/v2/images/${id}`)
    assert.deepEqual([status, body.code, body.title], [404, 404, 'Not Found'])
  }
})

test('the list of versions needs no credentials and has one entry of version 2', async () => {
  const { status, body } = await lab.call({ url: '/image/' }, 'compute')
  assert.equal(status, 200)
  assert.deepEqual(
    body.versions.map((one: { links: { href: string }[] }) => one.links[0]?.href),
    ['http://127.0.0.1:7410/image/v2/'],
  )
})

test('what clients filter by finds all, one or none', async () => {
  const [counter, tiny] = NAMES
  const id = imageId(tiny ?? '')
  for (const [query, found] of [
    ['status=active&visibility=public', NAMES],
    ['visibility=private', []],
    [`id=${id}`, [tiny]],
    [`id=in:${id},${imageId(counter ?? '')}`, NAMES],
    [`name=${tiny}&status=queued`, []],
    ['tag=blue', []],
    ['owner=nobody', []],
    ['member_status=accepted&shoe_size=44', NAMES],
    ['name=', NAMES],
  ] as const) {
    for (const list of LISTS) {
      assert.deepEqual((await names(`${list}?${query}`)).toSorted(), found, `${list}?${query}`)
    }
  }
  for (const [query, found] of [
    ['__imagetype=gold&__isregistered=true&__os_type=linux', NAMES],
    ['__imagetype=private', []],
    ['virtual_env_type=FusionCompute&enterprise_project_id=0&size_min=0&size_max=0', NAMES],
    ['__whole_image=true', []],
    ['__whole_image=false', NAMES],
    ['architecture=x86&flavor_id=s3.medium.1', NAMES],
    ['architecture=arm', []],
    ['__platform=Debian', NAMES],
  ] as const) {
    assert.deepEqual((await names(`/v2/cloudimages?${query}`)).toSorted(), found, query)
  }
})

test('pages end: of the one form by a missing link, of the other by an empty page', async () => {
  let url: string | undefined = '/image/v2/images?limit=1&sort=name:asc'
  const seen: string[] = []
  while (url !== undefined) {
    const { body }: Reply = await get(url)
    seen.push(...body.images.map((image: { name: string }) => image.name))
    // Clients put the link behind the address of the service, without its first part.
    assert.match(body.next ?? '/v2/', /^\/v2\//)
    url = body.next === undefined ? undefined : `/image${String(body.next)}`
  }
  assert.deepEqual(seen, NAMES)

  for (const limit of ['', '&limit=1']) {
    const walked: string[] = []
    let marker = ''
    for (;;) {
      const { body } = await get(`/v2/cloudimages?status=active&sort_key=name${limit}${marker}`)
      assert.equal(body.next, undefined)
      if (body.images.length === 0) break
      walked.push(...body.images.map((image: { name: string }) => image.name))
      marker = `&marker=${body.images.at(-1).id}`
    }
    assert.deepEqual(walked.toSorted(), NAMES)
  }
  assert.deepEqual(await names(`/v2/images?marker=${newId()}`), [])
})

test('the order is the one asked for', async () => {
  assert.deepEqual(await names('/v2/images?sort_key=name&sort_dir=asc'), NAMES)
  assert.deepEqual(await names('/v2/images?sort_key=name&sort_dir=desc'), NAMES.toReversed())
  assert.deepEqual(await names('/v2/images?sort=size:asc,name:desc'), NAMES.toReversed())
  const headers = { 'x-auth-token': token }
  for (const query of ['sort_key=weight', 'sort=weight:asc', 'limit=few']) {
    const { status, body } = await lab.call({ url: `/v2/images?${query}`, headers })
    assert.deepEqual([status, body.code], [400, 400], query)
  }
})

test('images are read only', async () => {
  const headers = { 'x-auth-token': token }
  for (const [method, url, status] of [
    ['POST', '/image/v2/images', 405],
    ['POST', '/v2/cloudimages/action', 404],
    ['DELETE', `/image/v2/images/${imageId('holdfast-tiny')}`, 405],
    ['GET', `/image/v2/images/${imageId('holdfast-tiny')}/file`, 404],
    ['GET', '/image/v2/schemas/image', 404],
  ] as const) {
    const body = method === 'POST' ? { body: {} } : {}
    const reply = await lab.call({ method, url, headers, ...body })
    assert.equal(reply.status, status, `${method} ${url}`)
    assert.deepEqual([reply.body.code, typeof reply.body.title], [status, 'string'])
  }
})
